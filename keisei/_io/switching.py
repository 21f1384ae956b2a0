"""Thread switches: the loop gets the GIL sooner while foreign code computes beside it."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from keisei._io.forks import after_in_child

_INTERVAL = 0.0001  # seconds; the interpreter's own is 5 ms
_lock = threading.Lock()
_busy = 0
_own = 0.005
_importing = 0
_thresholds = (700, 10, 10)
_NEVER = 1_000_000_000


def yield_gil() -> None:
    """Yield the GIL to a thread that waits for it, and would else do so for 5 ms."""
    time.sleep(0)


@contextmanager
def quick_switches() -> Iterator[None]:
    """Switch to a thread that waits for the GIL every 0.1 ms, and not every 5.

    The interval is the interpreter's, not a thread's: it is what it was before when the last of
    those who have asked for it is done.
    """
    global _busy, _own
    with _lock:
        if _busy == 0:
            _own = sys.getswitchinterval()
            sys.setswitchinterval(min(_INTERVAL, _own))
        _busy += 1
    try:
        yield
    finally:
        with _lock:
            _busy -= 1
            if _busy == 0:
                sys.setswitchinterval(_own)


@contextmanager
def quiet_imports(library: str | None = None) -> Iterator[None]:
    """Import on a thread with quick switches, and without full collections of garbage.

    A full one holds the whole interpreter (for a large library 25 to 150 ms at a time); those of
    what is youngest take 0.2 ms, and leave less for a later one. All that was made would be looked
    at again soon, were it not moved to the oldest generation: that is what freezing does, and
    thawing at once leaves it there.

    Args:
        library: what is imported; where it has been already, nothing is changed.
    """
    if library in sys.modules:
        yield
        return
    global _importing, _thresholds
    with _lock:
        if _importing == 0:
            _thresholds = gc.get_threshold()
            gc.set_threshold(_thresholds[0], _NEVER, _NEVER)
        _importing += 1
    frozen = gc.get_freeze_count()
    try:
        with quick_switches():
            yield
    finally:
        if frozen < 1000:  # the interpreter's own few; more are the program's, and stay frozen
            gc.freeze()
            gc.unfreeze()
        with _lock:
            _importing -= 1
            if _importing == 0:
                gc.set_threshold(*_thresholds)


def _begin_anew() -> None:
    """Undo in a forked child what threads have asked for that it has not."""
    global _lock, _busy, _importing
    _lock = threading.Lock()
    if _busy:
        _busy = 0
        sys.setswitchinterval(_own)
    if _importing:
        _importing = 0
        gc.set_threshold(*_thresholds)


after_in_child(_begin_anew)
