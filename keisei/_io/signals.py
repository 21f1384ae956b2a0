"""Signals of the process, handed to whoever watches for them: the first one, and the second.

Python runs a signal's handler in the main thread, between two instructions of whatever runs
there, so a handler may hardly do anything: locks that it needs may be held by what it interrupts.
Here it notes the number, calls `on_first`, and wakes a thread through a queue that is made for that
(`queue.SimpleQueue`). The thread waits out the grace time. Where the first signal was not to
interrupt the main thread yet, the thread sends it once more, to itself, when it is.

A handler that somebody else has installed before is called after it, or is left in its place.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from keisei._io.forks import after_in_child, around

_STOP = "stop"
_watches: list[Watch] = []
_previous: dict[int, Any] = {}
_again: set[int] = set()  # that a watch has sent to this process itself
_handing_on: set[int] = set()  # to a handler of somebody else's, which may call this one's again
_PASSED_ON = 0.25  # seconds in which a launcher has passed on what its workers have got as well
_LOOPS = frozenset({"anyio", "asyncio", "trio", "uvloop"})  # whose SIGINT is Ctrl-C for the loop


class Watch:
    """Watches for signals from `start` to `stop`.

    Args:
        numbers: the signals.
        grace: how long after the first signal the end is forced, in seconds.
        on_first: called in the main thread at the first signal, with its number and the frame
            that it interrupted; what it returns is raised there.
        on_forced: called on a thread at the second signal, or when the grace time is over.
        on_again: called in the main thread after `interrupt`, with the frame that is interrupted;
            what it returns is raised there.
        hold: called on a thread after `on_first`, returns after how many seconds the main thread is
            interrupted; ``None`` where it is not.
        gives_way: whether a signal that somebody else handles already is left to them; without it
            their handler is called after this one's.
        repeatable: those of which a second one is no second signal right behind a first one: a
            scheduler sends it to all processes, and a launcher passes it on to its own.

    Attributes:
        numbers: the signals that it watches for.
        left: those that it has left to others, at the start.
        received: the first signal; ``None`` while none has come.
        due_again: whether `on_again` is about to be called.
    """

    def __init__(
        self,
        numbers: Iterable[int],
        grace: float,
        on_first: Callable[[int, FrameType | None], BaseException | None],
        on_forced: Callable[[int], object],
        on_again: Callable[[FrameType | None], BaseException | None] = lambda frame: None,
        hold: Callable[[], float | None] = lambda: None,
        *,
        gives_way: bool = False,
        repeatable: Iterable[int] = (),
    ) -> None:
        self._repeatable = frozenset(repeatable)
        self.numbers = frozenset(numbers)
        self.left: frozenset[int] = frozenset()
        self.grace = grace
        self._gives_way = gives_way
        self._on_again = on_again
        self.received: int | None = None
        self._received_at = 0.0
        self._on_first = on_first
        self._on_forced = on_forced
        self._hold = hold
        self.due_again = False
        self._stopping = threading.Lock()
        self._stopped = False
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
        if self._gives_way:
            self.left = frozenset(number for number in self.numbers if _handled_by_others(number))
            self.numbers -= self.left
        threading.Thread(target=self._wait, name="keisei-signals", daemon=True).start()
        _watches.append(self)
        try:
            for number in self.numbers:
                if signal.getsignal(number) is not _handle:
                    _previous[number] = signal.signal(number, _handle)
        except OSError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop watching; the last watch of a signal puts the process's own handler back."""
        with self._stopping:  # the handlers are in place for what is sent until now
            self._stopped = True
        with suppress(ValueError):  # stopped before, perhaps off the main thread
            _watches.remove(self)
        _put_back(self.numbers.difference(*(watch.numbers for watch in _watches)))
        self._news.put(_STOP)

    def receive(self, number: int, frame: FrameType | None) -> BaseException | None:
        """Take a signal, in the main thread."""
        if self.received is not None:
            is_same = self._repeatable >= {self.received, number}
            if not is_same or time.monotonic() - self._received_at > _PASSED_ON:
                self._news.put("signal")
            return None
        self._received_at = time.monotonic()
        self.received = number
        error = self._on_first(number, frame)
        self._news.put("signal")
        return error

    def receive_again(self, frame: FrameType | None) -> BaseException | None:
        """Take what `interrupt` has sent, in the main thread."""
        self.due_again = False
        return self._on_again(frame)

    def _wait(self) -> None:
        if self._news.get() == _STOP:
            return
        give_up = time.monotonic() + self.grace
        hold, news = self._hold(), None
        if hold is not None:
            news = self._next(hold)
            if news is None:
                self.interrupt()
        if news is None:
            news = self._next(give_up - time.monotonic())
        if news != _STOP and self.received is not None:
            self._on_forced(self.received)

    def _next(self, timeout: float) -> str | None:
        try:
            return self._news.get(timeout=max(0.0, timeout))
        except Empty:
            return None

    def interrupt(self) -> bool:
        """Call `on_again` in the main thread, which is interrupted where it waits; thread-safe.

        Returns:
            Whether it is: none of the signals may be handled here any more.
        """
        with self._stopping:
            ours = (n for n in sorted(self.numbers) if signal.getsignal(n) is _handle)
            number = next(ours, None) if self.received not in self.numbers else self.received
            if self._stopped or number is None or signal.getsignal(number) is not _handle:
                return False
            self.due_again = True
            _again.add(number)
            if hasattr(signal, "pthread_kill") and (main := threading.main_thread().ident):
                signal.pthread_kill(main, number)
            else:
                signal.raise_signal(number)
            return True


def _handle(number: int, frame: FrameType | None) -> None:
    if number in _again:
        _again.discard(number)
        again = [watch.receive_again(frame) for watch in tuple(_watches) if watch.due_again]
        _raise_first(again)
        return
    if number in _handing_on:
        return
    watches = [watch for watch in tuple(_watches) if number in watch.numbers]
    if not watches and signal.getsignal(number) is _handle:  # the last was stopped off this thread
        _put_back([number])
        signal.raise_signal(number)
        return
    try:
        _raise_first([watch.receive(number, frame) for watch in watches])
    finally:
        _handing_on.add(number)
        try:
            _hand_on(number, frame, alone=not watches)
        finally:
            _handing_on.discard(number)


def _hand_on(number: int, frame: FrameType | None, *, alone: bool) -> None:
    """Call the handler that stood before the first watch, where it is somebody else's.

    Args:
        number: the signal.
        frame: what it has interrupted.
        alone: whether no watch has taken the signal: a handler that was installed over this one's
            has called it after the last watch.
    """
    before = _previous.get(number)
    if callable(before) and (alone or _is_others(number, before)):
        before(number, frame)
    elif alone and before != signal.SIG_IGN:
        now = signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        signal.signal(number, now)


def _handled_by_others(number: int) -> bool:
    """Return whether a handler of somebody else's stands before the first watch of a signal."""
    now = signal.getsignal(number)
    return _is_others(number, _previous.get(number) if now is _handle else now)


def _is_others(number: int, handler: Any) -> bool:
    """Return whether a handler is a program's or a library's, and not Python's or a loop's own."""
    if not callable(handler) or handler in (_handle, signal.default_int_handler):
        return False
    if number != signal.SIGINT:
        return True
    while isinstance(handler, partial):
        handler = handler.func
    module = getattr(handler, "__module__", None) or type(handler).__module__
    return module.partition(".")[0] not in _LOOPS


def _raise_first(errors: Iterable[BaseException | None]) -> None:
    for error in errors:
        if error is not None:
            raise error


def _put_back(numbers: Iterable[int]) -> None:
    for number in _previous.keys() & set(numbers):
        handler = _previous.get(number, _handle)
        if signal.getsignal(number) is not _handle:
            continue  # somebody has put theirs in its place: it may call ours, which hands on
        with suppress(ValueError):  # off the main thread; our own handler does it, then
            # None: one that was not installed from Python, which only C could put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
            _previous.pop(number, None)


def _after_fork() -> None:
    """Leave a forked child alone: signals reach it as if there were no session."""
    _watches.clear()
    _again.clear()
    _handing_on.clear()
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
