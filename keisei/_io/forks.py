"""What is done around a fork, so that a child leaves alone what is its parent's."""

from __future__ import annotations

import os
from collections.abc import Callable


def after_in_child(func: Callable[[], object]) -> None:
    """Call a function in every child that is forked from now on; on Windows, do nothing.

    Args:
        func: called with nothing, before `os.fork` returns in the child. The child has no other
            thread, so that a lock of the parent's may be held for ever in it.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=func)


def around(before: Callable[[], object], after: Callable[[], object]) -> None:
    """Call a function before each fork, and another one after it, in the thread that forks.

    Args:
        before: called in the parent.
        after: called in the parent and in the child, where it comes after the functions that were
            given to `after_in_child` before.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
