"""Measures the lag of an event loop from a thread of its own, and finds out what has held it.

A loop that waits for something to do is not asked for anything: the watchdog looks where it stands.
It calls a loop that does something else, and one that it was kept from looking at. While the answer
is late it looks at the stacks of the threads; what it cannot see, as the GIL or the CPU was
another's, the clocks say.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from keisei._io.forks import after_in_child
from keisei._io.loop import LoopHere
from keisei._io.shared_threads import Bell
from keisei.monitoring.clocks import Clocks, Reading, queueing
from keisei.monitoring.looks import Looks
from keisei.monitoring.stalls import Cause, Frame, Seen, cause_of

LOOKS = 2  # in each threshold, at a loop that has been seen to do something lately
_RAREST = 1.0  # seconds between two looks at most
_SELDOM = 1.0  # seconds until a loop counts as idle for long
_RARELY = 5.0  # seconds until a loop is called though it is idle
_EARLY = 0.001  # seconds that a watchdog wakes late at most where nothing keeps it from it
_TRACE = 0.02  # the share of the time that a loop without frames computes while it is idle
_RESUMES = 3  # times that a thread waits for something when its process goes on
_WAKES = 4  # times that a loop's thread gets a CPU until it is held, and behind it
_LOOK = 0.005  # seconds between two looks at a loop that is late

_running: set[Watchdog] = set()


@dataclass(frozen=True)
class Stall:
    """An event loop did not answer for longer than the threshold.

    Attributes:
        seconds: for how long, give or take a quarter of the threshold; half of it where the loop
            had been idle for long.
        cause: what held it.
        frame: the program's frame that held it, or that stood there meanwhile, if one was seen.
        began: when it began, in seconds by `time.monotonic`.
    """

    seconds: float
    cause: Cause
    frame: Frame | None
    began: float


class _Question(NamedTuple):
    """A call that the loop is to answer.

    Attributes:
        since: since when the loop has not turned, as far as it is known.
        before: what the clocks of its thread said before.
        idle: whether the loop had nothing to do, and who asks was kept from it.
    """

    since: float
    before: Reading
    idle: bool = False


class _Late(NamedTuple):
    """A question that was answered late, when it was, and what the clocks said then."""

    question: _Question
    came: float
    after: Reading


class Watchdog:
    """Watches the loop that runs where it is made, from `start` to `stop`, which are called there.

    Args:
        threshold: what counts as a stall, in seconds.
        on_stall: called with each stall, on the watchdog's thread.
        on_end: called when it has ended, on its thread.
    """

    def __init__(
        self,
        threshold: float,
        on_stall: Callable[[Stall], object],
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._threshold = threshold
        self._on_stall, self._on_end = on_stall, on_end
        self._question: _Question | None = None
        self._turned = 0.0  # when the loop was seen to turn, or to wait for something to do
        self._due = self._pause = 0.0  # when the watchdog looks next, and how long after the last
        self._late: deque[_Late] = deque()  # those that have not been told yet
        self._bell = Bell()
        self._stopped = False
        self._ended = False  # whether nothing more will be told
        self._waiting: deque[threading.Event] = deque()  # for what is late to be told
        self._collecting = 0.0
        self._collection: float | None = None  # when the one that runs has begun
        self._clocks: Clocks | None = None
        self._open: list[Clocks] = []
        self._last = Reading()
        self._looks = Looks(0, Watchdog._collected.__code__)
        self._loop: LoopHere | None = None
        self._thread = threading.Thread(target=self._run, name="keisei-lag", daemon=True)

    def start(self) -> None:
        """Begin to watch.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._loop = LoopHere()
        self._looks = Looks(threading.get_ident(), Watchdog._collected.__code__)
        self._clocks = Clocks()
        self._open.append(self._clocks)
        self._last = self._clocks.read()
        self._turned = time.monotonic()
        self._due = self._turned + self._threshold / LOOKS
        try:
            self._thread.start()
        except RuntimeError:
            self._close()
            raise
        gc.callbacks.append(self._collected)
        _running.add(self)

    def stop(self) -> None:
        """Watch no longer; thread-safe. It does not wait for the thread; again, it does nothing."""
        self._stopped = True
        self._bell.ring()
        _running.discard(self)
        with suppress(ValueError):
            gc.callbacks.remove(self._collected)

    def settle(self, timeout: float) -> None:
        """Wait until the stalls that have ended by now are told; on any thread but its own.

        Args:
            timeout: for how long at most, in seconds.
        """
        if not self._late or threading.current_thread() is self._thread:
            return
        told = threading.Event()
        self._waiting.append(told)
        self._bell.ring()
        if not self._ended:
            told.wait(timeout)

    @property
    def tells(self) -> bool:
        """Whether a stall has ended that is not told yet."""
        return bool(self._late)

    def in_child(self) -> None:
        """End in a forked child, which has no thread of it, and may not wait for a lock."""
        self.stop()
        self._close()

    def _close(self) -> None:
        while self._open:
            self._open.pop().close()

    def beat(self) -> None:
        """Note that the loop turns, in it; also where nobody has asked."""
        if self._stopped or self._clocks is None:
            return
        now = time.monotonic()
        question, self._question = self._question, None
        if question is None and now > self._due:  # the watchdog is kept from asking
            question = _Question((self._turned + self._due) / 2, self._last)
        self._turned = now
        if question is not None and now - question.since >= self._threshold:
            self._looks.look()  # first: to read the clocks lets who has held the GIL go on
            self._late.append(_Late(question, now, self._clocks.read(self._collecting)))
            self._bell.ring()

    def _answer(self) -> None:
        """Answer a question; called by the loop itself."""
        self._looks.under = id(sys._getframe(1))
        self.beat()

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        """Note how long the collector takes: it holds the GIL, whichever thread it runs on."""
        if phase == "start":
            self._collection = time.perf_counter()
        elif self._collection is not None:
            took, self._collection = time.perf_counter() - self._collection, None
            self._collecting += took
            if took >= self._threshold / 2:
                self._looks.look_at_collector(sys._getframe())

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            self._ended = True
            self.stop()
            self._close()
            self._on_end()
            self._tell_waiting()

    def _watch(self) -> None:
        assert self._loop is not None
        assert self._clocks is not None
        own, loop, looks = Clocks(), self._loop, self._looks
        self._open.append(own)
        looks.watchdog = threading.get_ident()
        waits = deque[_Wait](maxlen=1000)
        busy = time.monotonic()
        asked, idle, seen = 0.0, False, 0.0
        while True:
            over = self._stopped or loop.ended
            if not over:
                slept, dozes = own.read(), idle and self._clocks.shown
                wakes = self._doze(seen, asked + _RARELY) if dozes else self._sleep()
                now, question = time.monotonic(), self._question
                seen = self._clocks.computed()  # first: to read a file lets the others go on
                computed = seen - self._last.computed
                computes = not self._clocks.shown or computed > _TRACE * (now - self._turned)
                idle = question is None and looks.is_idle(loop.in_c, computes)
                late = now - self._due
                is_late = late > self._threshold / 4
                is_behind = question is not None and now - question.since > self._threshold / 2
                if self._late or is_behind or is_late:
                    looks.look()
                waits.append(_Wait.between(self._due, now, slept, own.read(), wakes))
            while self._late:
                self._report(self._late[0], waits, looks)
                self._late.popleft()
            self._tell_waiting()
            if over:
                return
            before, self._last = self._last, self._clocks.read(self._collecting)
            if not loop.running:
                self._question, self._turned, idle = None, now, False
            elif self._question is None:
                since = (self._turned + min(now, self._due)) / 2
                if is_late and min(waits[-1].waited, computed) >= late / 2:
                    since = now  # one that alone had no CPU knows nothing of the loop
                if not is_late and not self._late:
                    looks.all_is_well(now)
                    waits.clear()
                if idle and not is_late:
                    self._turned = now
                else:
                    busy = now
                if not idle or is_late or now - asked >= _RARELY:
                    self._question = _Question(since, before, idle and is_late)
                    asked = now
                    idle = False
                    loop.call_soon(self._answer)
            self._pause = self._threshold / (LOOKS if now - busy < _SELDOM else 1)
            if is_behind and self._question is not None:
                # The longer it has lasted, the less another look can change.
                self._pause = _LOOK + (now - self._question.since) / 50
            self._pause = min(self._pause, _RAREST)
            self._due = now + self._pause  # also where it was held up since it woke

    def _sleep(self) -> int:
        """Sleep until the next look, or until it has something to tell; return 1, for one wake."""
        self._bell.wait(self._due - time.monotonic())
        return 1

    def _doze(self, seen: float, until: float) -> int:
        """Sleep until the loop, which was idle, may be so no more; return how often it woke.

        A thread that has not computed since it was seen to wait for something to do waits still:
        that look is the cheapest, as `time.sleep` is the cheapest wait.
        """
        assert self._clocks is not None
        # Each look finds the caches of the CPU cold: what is not asked for here is not paid.
        read, process = self._clocks.computed, self._last.process
        wakes, now = 0, time.monotonic()
        while True:
            due = self._due
            time.sleep(max(0.0, due - now))
            now = time.monotonic()
            wakes += 1
            if read() != seen or now - due > _EARLY or now >= until or self._stopped:
                self._last = self._last._replace(process=process)
                return wakes
            process = time.process_time()
            self._turned = now
            self._due = now + self._pause

    def _tell_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().set()

    def _report(self, late: _Late, waits: deque[_Wait], looks: Looks) -> None:
        (start, before, idle), end, after = late
        length = end - start
        meanwhile = [w for w in waits if w.due < w.woke and start < w.woke and w.due < end]
        seen = Seen(
            length=length,
            collecting=after.collecting - before.collecting,
            computing=after.computed - before.computed,
            waiting=None if after.waited is None else after.waited - (before.waited or 0.0),
            process=after.process - before.process,
            late=sum(min(wait.woke, end) - max(wait.due, start) for wait in meanwhile),
            asleep=after.asleep - before.asleep,
            queueing=queueing(before, after, _WAKES),
            watchdog_queueing=_sum(wait.queued for wait in meanwhile),
            watchdog_waiting=sum(wait.waited for wait in meanwhile),
            idle=idle,
        )
        cause = cause_of(seen)
        is_other = cause == "another thread with the GIL"
        frame = looks.of_holder(length) if is_other else looks.of_loop()
        if cause == "garbage collection":
            frame = looks.collector or frame
        with suppress(Exception):  # whoever hears of stalls is no reason to watch no longer
            self._on_stall(Stall(length, cause, frame, start))


class _Wait(NamedTuple):
    """A wait of the watchdog's, in seconds.

    Attributes:
        due: when it should have ended.
        woke: when it had ended.
        queued: how much of it was for the GIL; ``None`` where nothing says it.
        waited: how much of it was for a CPU.
    """

    due: float
    woke: float
    queued: float | None
    waited: float

    @classmethod
    def between(cls, due: float, woke: float, before: Reading, after: Reading, wakes: int) -> _Wait:
        """Return a wait, by the clocks of the watchdog's thread some wakes before and behind it."""
        waited = (after.waited or 0.0) - (before.waited or 0.0)
        return cls(due, woke, queueing(before, after, wakes), waited)


def _sum(values: Iterable[float | None]) -> float | None:
    """Add up waits for the GIL, without what a process that is stopped and goes on looks like."""
    known = [value for value in values if value is not None]
    return max(0.0, sum(known) - _RESUMES * sys.getswitchinterval()) if known else None


def _forget() -> None:
    for watchdog in tuple(_running):
        watchdog.in_child()


after_in_child(_forget)
