"""Imports a large library on a thread, in a way that the loop's thread bears."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from keisei._io.switching import quick_switches

_one_at_a_time = threading.Lock()  # two would each store what the other has set


@contextmanager
def gentle_import(library: str) -> Iterator[None]:
    """Let the loop's thread in often while an import runs in the block, and collect no garbage.

    Args:
        library: what is imported; where it has been already, nothing is changed.
    """
    with _one_at_a_time:
        if library in sys.modules:
            yield
        else:
            with _no_collection(), quick_switches():
                yield


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector off what an import makes: 25 ms with the whole loop held.

    It would look at all of it again as soon as it is enabled, were it not moved to the oldest
    generation: that is what freezing does, and thawing at once leaves it there.
    """
    collecting, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    try:
        yield
    finally:
        if frozen < 1000:  # the interpreter's own few; more are the program's, and stay frozen
            gc.freeze()
            gc.unfreeze()
        if collecting:
            gc.enable()
