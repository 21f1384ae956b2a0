"""Measures the lag of an event loop from a thread of its own, and finds out what has held it.

The loop beats several times in each threshold, and reads at each beat clocks that go on while it
does not answer. While a beat is late the watchdog looks at the stacks of the threads; what it
cannot see, as the GIL or the CPU was another's, the clocks say.
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
from keisei._io.loop import Ticks
from keisei._io.shared_threads import Bell
from keisei.monitoring.clocks import Clocks, Reading, queueing
from keisei.monitoring.looks import Looks
from keisei.monitoring.stalls import Cause, Frame, Seen, cause_of

BEATS = 2  # in each threshold
_RAREST = 1.0  # seconds between two beats at most
_RESUMES = 3  # times that a thread waits for something when its process goes on
_LOOK = 0.005  # seconds between two looks at a loop that is late

_running: set[Watchdog] = set()


@dataclass(frozen=True)
class Stall:
    """An event loop did not answer for longer than the threshold.

    Attributes:
        seconds: for how long, as far as it was seen: it may have begun up to half a threshold
            earlier.
        cause: what held it.
        frame: the program's frame that held it, or that stood there meanwhile, if one was seen.
        began: when it began, in seconds by `time.monotonic`.
    """

    seconds: float
    cause: Cause
    frame: Frame | None
    began: float


class _Late(NamedTuple):
    """A beat that came late.

    Attributes:
        due: when it should have come.
        came: when it came.
        before: what the clocks said at the beat before it.
        after: what they said when it came.
    """

    due: float
    came: float
    before: Reading
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
        self._interval = min(threshold / BEATS, _RAREST)
        self._on_stall, self._on_end = on_stall, on_end
        self._due = 0.0  # when the loop's next beat is
        self._late: deque[_Late] = deque()  # those that have not been told yet
        self._bell = Bell()
        self._looking = False
        self._stopped = False
        self._ended = False  # whether nothing more will be told
        self._waiting: deque[threading.Event] = deque()  # for what is late to be told
        self._collecting = 0.0
        self._collection: float | None = None  # when the one that runs has begun
        self._clocks: Clocks | None = None
        self._open: list[Clocks] = []
        self._last = Reading()
        self._looks = Looks(0, Watchdog._collected.__code__)
        self._ticks: Ticks | None = None
        self._paused = False  # whether the loop was seen not to run
        self._thread = threading.Thread(target=self._run, name="keisei-lag", daemon=True)

    def start(self) -> None:
        """Begin to watch.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._looks = Looks(threading.get_ident(), Watchdog._collected.__code__)
        self._clocks = Clocks()
        self._open.append(self._clocks)
        self._last = self._clocks.read(0.0)
        self._due = time.monotonic() + self._interval
        self._ticks = Ticks(self._interval, self.beat)
        try:
            self._thread.start()
        except RuntimeError:
            self._ticks.stop()
            self._close()
            raise
        gc.callbacks.append(self._collected)
        _running.add(self)

    def stop(self) -> None:
        """Watch no longer; a second call changes nothing. It does not wait for the thread."""
        if self._ticks is not None:
            self._ticks.stop()
        self._forget()

    def leave(self) -> None:
        """Watch no longer, as `stop` does; thread-safe."""
        if self._ticks is not None:
            self._ticks.end()
        self._forget()

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

    def _forget(self) -> None:
        self._stopped = True
        self._bell.ring()
        _running.discard(self)
        with suppress(ValueError):
            gc.callbacks.remove(self._collected)

    def in_child(self) -> None:
        """End in a forked child, which has no thread of it, and may not wait for a lock."""
        self.leave()
        self._close()

    def _close(self) -> None:
        while self._open:
            self._open.pop().close()

    def beat(self) -> None:
        """Note that the loop turns, in it; too early does no harm."""
        if self._stopped or self._clocks is None:
            return
        now = time.monotonic()
        late = now - self._due >= self._threshold - self._interval / 2 and not self._paused
        if late:
            self._looks.look()  # first: to read the clocks lets who has held the GIL go on
        before, self._last = self._last, self._clocks.read(self._collecting)
        if late:
            self._late.append(_Late(self._due, now, before, self._last))
        self._paused = False
        self._due = now + self._interval
        if self._looking or late:
            self._bell.ring()

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        """Note how long the collector takes: it holds the GIL, whichever thread it runs on."""
        if phase == "start":
            self._collection = time.perf_counter()
        elif self._collection is not None:
            self._collecting += time.perf_counter() - self._collection
            self._collection = None

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            self._ended = True
            self._forget()
            self._close()
            self._on_end()
            self._tell_waiting()

    def _watch(self) -> None:
        assert self._ticks is not None
        own, ticks = Clocks(), self._ticks
        self._open.append(own)
        looks = self._looks
        looks.watchdog = threading.get_ident()
        waits = deque[_Wait](maxlen=1000)
        pause, now = self._interval, time.monotonic()
        while True:
            over = self._stopped or ticks.ended
            if not over:
                due, switches, waited = now + pause, own.switches(), own.waited()
                self._bell.wait(due - time.monotonic())
                now = time.monotonic()
                if self._late or now - self._due > self._threshold / 4:
                    looks.look()  # first: to read a file lets the others go on
                queued = queueing(switches, own.switches(), 1)
                waits.append(_Wait(due, now, queued, (own.waited() or 0.0) - (waited or 0.0)))
            while self._late:
                self._report(self._late[0], waits, looks)
                self._late.popleft()
            self._tell_waiting()
            if over:
                return
            behind = now - self._due
            self._looking = behind > self._threshold / 4 and ticks.running
            if self._looking:
                # The longer it has lasted, the less another look can change.
                pause = min(_LOOK + behind / 50, 1.0)
            else:
                self._paused = self._paused or not ticks.running
                pause = self._interval
                if not self._late:
                    looks.all_is_well(now)
                    waits.clear()

    def _tell_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().set()

    def _report(self, late: _Late, waits: deque[_Wait], looks: Looks) -> None:
        start, end, before, after = late
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
            queueing=queueing(before.switches, after.switches, 2),
            watchdog_queueing=_sum(wait.queued for wait in meanwhile),
            watchdog_waiting=sum(wait.waited for wait in meanwhile),
        )
        cause = cause_of(seen)
        is_other = cause == "another thread with the GIL"
        frame = looks.of_holder(length) if is_other else looks.of_loop()
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


def _sum(values: Iterable[float | None]) -> float | None:
    """Add up waits for the GIL, without what a process that is stopped and goes on looks like."""
    known = [value for value in values if value is not None]
    return max(0.0, sum(known) - _RESUMES * sys.getswitchinterval()) if known else None


def _forget() -> None:
    for watchdog in tuple(_running):
        watchdog.in_child()


after_in_child(_forget)
