"""Waits for a start of the SDK's within a deadline; a run that comes alive later is closed at once.

The SDK's own deadline is no help: a run that a slow server makes after it stays open there. So the
start goes on, on a thread of its own. When it has ended, one decision is taken under a lock: either
somebody still waits, and gets the run, or nobody does, and the thread closes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

RunT = TypeVar("RunT")


class PendingStart(Generic[RunT]):
    """A start under way.

    Args:
        start: the blocking call that returns the run.
        discard: closes a run that has come alive too late; blocks.
        name: the thread's name.
    """

    def __init__(
        self, start: Callable[[], RunT], discard: Callable[[RunT], object], name: str
    ) -> None:
        self._start, self._discard = start, discard
        self._run: RunT | None = None
        self._error: BaseException | None = None
        self._left = False
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            run = self._start()
        except BaseException as exc:  # noqa: BLE001 - foreign code; raised where it is waited for
            with self._changed:
                self._error, self._ended = exc, True
                self._changed.notify_all()
            return
        with self._changed:
            self._ended = True
            late = self._left
            if not late:
                self._run = run
            self._changed.notify_all()
        if late:
            with suppress(Exception):
                self._discard(run)

    def result(self, timeout: float) -> RunT:
        """Wait for the run; blocks.

        Args:
            timeout: the longest wait, in seconds; a run that comes alive after it is closed.

        Raises:
            TimeoutError: it has not started in time. What the start raises is raised as it is.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended, timeout):
                self._left = True
                raise TimeoutError("it did not start in time")
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or the traceback would hold itself
        assert self._run is not None
        return self._run

    def wait_closed(self) -> None:
        """Wait until a late run is closed; blocks."""
        self._thread.join()
