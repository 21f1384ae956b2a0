"""Which session is the current one here: in a task and all that it starts, or in a thread.

A context variable says so, which child tasks and `anyio.to_thread` inherit. It is not reset by its
token, for a block may be left in another context than it was entered in (as fixtures are): what
was left is marked, and passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from keisei._io.forks import after_in_child


class Entered:
    """A block in which a session is the current one.

    Args:
        owner: what stands for the session.
        outer: the block around this one.
    """

    def __init__(self, owner: object, outer: Entered | None) -> None:
        self.owner: object | None = owner
        self.outer = outer


_innermost: ContextVar[Entered | None] = ContextVar("keisei_session", default=None)

after_in_child(lambda: _innermost.set(None))  # the sessions are the parent's


def _open() -> Entered | None:
    entered = _innermost.get()
    while entered is not None and entered.owner is None:
        entered = entered.outer
    return entered


def current() -> object | None:
    """Return what stands for the current session; ``None`` where there is none."""
    entered = _open()
    return None if entered is None else entered.owner


def enter(owner: object) -> Entered:
    """Make a session the current one of this context.

    Args:
        owner: what stands for the session.

    Returns:
        What `leave` takes.
    """
    entered = Entered(owner, _open())
    _innermost.set(entered)
    return entered


def leave(entered: Entered) -> None:
    """Make the session around this one the current one again, in all contexts that inherited it."""
    entered.owner = None
    if _innermost.get() is entered:
        _innermost.set(entered.outer)


@contextmanager
def inside(owner: object) -> Iterator[None]:
    """Make a session the current one within a block.

    Args:
        owner: what stands for the session.
    """
    entered = enter(owner)
    try:
        yield
    finally:
        leave(entered)
