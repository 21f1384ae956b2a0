"""The body of a session, and how it is told to end: its task is cancelled.

A body that runs in no loop is told by an error that is raised in it; see `Interruption`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio

from keisei._io.loop import calling_soon


class Left(NamedTuple):
    """What leaves a session's block, once its scope is closed.

    Attributes:
        error: the exception, without the cancellations of the scope.
        cancelled: whether the cancellation of the body was caught here.
        misplaced: whether another task has left the block than the one that had entered it, which
            still runs.
    """

    error: BaseException | None
    cancelled: bool = False
    misplaced: RuntimeError | None = None


class Body:
    """The body of one session's block.

    Attributes:
        is_over: whether it has ended: it is not told any more.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._scope: anyio.CancelScope | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancel: Callable[[], object] | None = None
        self._is_cancelled = False  # by `Task.cancel`, without a scope

    @property
    def is_known(self) -> bool:
        """Whether there is a task that can be cancelled."""
        return self._cancel is not None

    @property
    def task_is_over(self) -> bool:
        """Whether the task that has entered has ended before the block: a fixture's."""
        return self._task is not None and self._task.done() and not self.is_over

    def meet(self) -> None:
        """Take the task that runs now for the body's, until `open` does; on trio, do nothing."""
        if (task := current_task()) is not None:
            self._task, self._cancel = task, calling_soon(self._cancel_task)

    def open(self, *, scoped: bool) -> None:
        """Take the task that runs now for the body's, from here to `leave`.

        Args:
            scoped: whether a scope is opened around it. What is cancelled so stays cancelled, but
                has to be left in the task that entered it, and in the order of scopes. On trio
                there is no other way: without it, the body's next call raises.
        """
        if self._scope is not None:
            return
        if scoped:
            scope = anyio.CancelScope()
            self._scope = scope.__enter__()
            self._task, self._cancel = current_task(), calling_soon(scope.cancel)
        else:
            self.meet()

    def cancel(self) -> None:
        """Cancel the body's task soon; from any thread, and from a signal handler."""
        if self._cancel is not None and not self.is_over:
            self._cancel()

    def cancel_here(self) -> None:
        """Cancel the body's task, from within: its next suspension is cancelled."""
        if self._scope is not None:
            self._scope.cancel()
        else:
            self._cancel_task()

    def _cancel_task(self) -> None:
        if self._task is not None and not self.is_over and not self._task.done():
            self._is_cancelled = True
            self._task.cancel()

    def leave(self, exc: BaseException | None) -> Left:
        """Close the scope around the body.

        Args:
            exc: what leaves it.
        """
        scope, self._scope, self._cancel = self._scope, None, None
        if scope is None:
            if self._is_cancelled and self._task is current_task() and self._task is not None:
                self._is_cancelled = False
                self._task.uncancel()
            return Left(exc)
        try:
            return Left(exc, cancelled=bool(scope.__exit__(type(exc) if exc else None, exc, None)))
        except RuntimeError as misplaced:  # left in another task than it was entered in
            is_alive = self._task is None or not self._task.done()
            return Left(exc, misplaced=misplaced if exc is None and is_alive else None)
        except BaseException as filtered:  # noqa: BLE001 - a group without the cancellations
            return Left(filtered)


def current_task() -> asyncio.Task[Any] | None:
    """Return the task that runs now, where the loop is asyncio's."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
