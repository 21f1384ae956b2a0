"""Signals of the process, handed to whoever watches for them: the first one, and the second.

Python runs a signal's handler in the main thread, between two instructions of whatever runs
there, so a handler may hardly do anything: locks that it needs may be held by what it interrupts.
Here it notes the number, wakes a thread through a queue that is made for that
(`queue.SimpleQueue`), and calls `on_first`. The thread waits out the grace time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from keisei._io.forks import after_in_child, around

_STOP = "stop"
_watches: list[Watch] = []
_previous: dict[int, Any] = {}


class Watch:
    """Watches for signals from `start` to `stop`.

    Args:
        numbers: the signals.
        grace: how long after the first signal the end is forced, in seconds.
        on_first: called in the main thread at the first signal, with its number and the frame
            that it interrupted; what it returns is raised there.
        on_forced: called on a thread at the second signal, or when the grace time is over.
    """

    def __init__(
        self,
        numbers: Iterable[int],
        grace: float,
        on_first: Callable[[int, FrameType | None], BaseException | None],
        on_forced: Callable[[int], object],
    ) -> None:
        self.numbers = frozenset(numbers)
        self.grace = grace
        self.received: int | None = None
        self._on_first = on_first
        self._on_forced = on_forced
        self._news: SimpleQueue[str] = SimpleQueue()

    def start(self) -> None:
        """Put the handlers in place, the process's own aside.

        Raises:
            RuntimeError: this is not the main thread.
            OSError: a process may not handle one of them.
            ValueError: the grace time is no positive number.
        """
        if not 0 < self.grace < threading.TIMEOUT_MAX:
            raise ValueError("the grace time is no positive number")
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("signals can be handled in the main thread only")
        threading.Thread(target=self._wait, name="keisei-signals", daemon=True).start()
        _watches.append(self)
        try:
            for number in self.numbers - _previous.keys():
                _previous[number] = signal.signal(number, _handle)
        except OSError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop watching; the last watch of a signal puts the process's own handler back."""
        with suppress(ValueError):  # stopped before, perhaps off the main thread
            _watches.remove(self)
        _put_back(self.numbers.difference(*(watch.numbers for watch in _watches)))
        self._news.put(_STOP)

    def receive(self, number: int, frame: FrameType | None) -> BaseException | None:
        """Take a signal, in the main thread."""
        first = self.received is None
        self._news.put("signal")
        if not first:
            return None
        self.received = number
        return self._on_first(number, frame)

    def _wait(self) -> None:
        if self._news.get() == _STOP:
            return
        with suppress(Empty):
            if self._news.get(timeout=self.grace) == _STOP:
                return
        if self.received is not None:
            self._on_forced(self.received)


def _handle(number: int, frame: FrameType | None) -> None:
    watches = [watch for watch in tuple(_watches) if number in watch.numbers]
    if not watches:  # the last one was stopped off the main thread
        _put_back([number])
        signal.raise_signal(number)
        return
    errors = [watch.receive(number, frame) for watch in watches]
    for error in errors:
        if error is not None:
            raise error


def _put_back(numbers: Iterable[int]) -> None:
    for number in _previous.keys() & set(numbers):
        handler = _previous.get(number, _handle)
        with suppress(ValueError):  # off the main thread; our own handler does it, then
            # None: one that was not installed from Python, which only C could put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
            _previous.pop(number, None)


def _after_fork() -> None:
    """Leave a forked child alone: signals reach it as if there were no session."""
    _watches.clear()
    _put_back(list(_previous))


_forking = threading.local()


def _before_fork() -> None:
    """Keep signals for the child back until it has handlers of its own.

    Python forgets what is pending when a child begins: a SIGTERM that came so early would be lost,
    and whoever has sent it (a pool that ends) would wait for the child for ever.
    """
    if _watches:
        numbers = frozenset().union(*(watch.numbers for watch in _watches))
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def _forked() -> None:
    mask = _forking.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


after_in_child(_after_fork)
around(_before_fork, _forked)
