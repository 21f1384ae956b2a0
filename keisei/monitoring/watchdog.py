"""Measures the lag of an event loop from a thread of its own, and finds out what has held it.

The loop beats several times in each threshold. While a beat is late the watchdog looks at the
stacks of the threads; what it cannot see, as the GIL or the CPU was another's, it finds out from
clocks that go on.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from anyio.lowlevel import current_token

from keisei._io.forks import after_in_child
from keisei._io.loop import Ticks
from keisei.monitoring.stalls import Cause, Frame, Seen, blamed, cause_of, is_library

BEATS = 3  # in each threshold
_LOOK = 0.005  # seconds between two looks at a loop that is late
_DEEPEST = 40  # frames
# Where a thread stands that holds nobody up.
_WAITING = frozenset(
    "_wait_for_tstate_lock accept acquire get get_events join poll recv recv_into run_forever "
    "select wait".split()
)

_running: set[Watchdog] = set()


@dataclass(frozen=True)
class Stall:
    """An event loop did not answer for longer than the threshold.

    Attributes:
        seconds: for how long, as far as it was seen: it may have begun up to half a threshold
            earlier.
        cause: what held it.
        frame: the program's frame that held it, or that stood there meanwhile, if one was seen.
    """

    seconds: float
    cause: Cause
    frame: Frame | None


class Watchdog:
    """Watches the loop that runs where it is made, from `start` to `stop`, which are called there.

    Args:
        threshold: what counts as a stall, in seconds.
        on_stall: called with each stall, on the watchdog's thread.
    """

    def __init__(self, threshold: float, on_stall: Callable[[Stall], object]) -> None:
        self._threshold = threshold
        self._interval = threshold / BEATS
        self._on_stall = on_stall
        self._due = 0.0  # when the loop's next beat is
        self._late: tuple[float, float] | None = None  # when a late one was due, and when it came
        self._beaten = threading.Event()
        self._stopped = threading.Event()
        self._collecting = 0.0
        self._collection: float | None = None  # when the one that runs has begun
        self._clocks = _Clocks(threading.get_ident(), threading.get_native_id())
        self._ticks: Ticks | None = None
        self._paused = False  # whether the loop was seen not to run
        self._thread = threading.Thread(target=self._watch, name="keisei-lag", daemon=True)

    def start(self) -> None:
        """Begin to watch.

        Raises:
            RuntimeError: no thread can be started.
        """
        self._due = time.monotonic() + self._interval
        self._ticks = Ticks(self._interval, self._beat)
        self._thread.start()
        gc.callbacks.append(self._collected)
        _running.add(self)

    def stop(self) -> None:
        """Watch no longer; a second call changes nothing. It does not wait for the thread."""
        if self._ticks is not None:
            self._ticks.stop()
        self._forget()

    def _forget(self) -> None:
        self._stopped.set()
        self._beaten.set()
        _running.discard(self)
        with suppress(ValueError):
            gc.callbacks.remove(self._collected)

    def _beat(self) -> None:
        """Note that the loop turns, in it."""
        now = time.monotonic()
        if now - self._due >= self._threshold - self._interval / 2 and not self._paused:
            self._late = self._due, now
        self._paused = False
        self._due = now + self._interval
        self._clocks.computed_here()
        self._beaten.set()

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        """Note how long the collector takes: it holds the GIL, whichever thread it runs on."""
        if phase == "start":
            self._collection = time.perf_counter()
        elif self._collection is not None:
            self._collecting += time.perf_counter() - self._collection
            self._collection = None

    def _watch(self) -> None:
        assert self._ticks is not None
        before, collected = self._clocks.read(), self._collecting
        last = time.monotonic()
        while not (self._stopped.wait(self._interval) or self._ticks.ended):
            looks = _Looks(self._clocks.thread)
            waits = [(last + self._interval, last := time.monotonic())]
            while self._late is None and last > self._due + self._threshold / 4:
                if not self._ticks.running:
                    self._paused = True
                    break
                self._beaten.clear()
                looks.look()
                # The longer it has lasted, the less another look can change.
                wait = min(_LOOK + (last - self._due) / 50, 1.0)
                self._beaten.wait(wait)
                if self._stopped.is_set():
                    break
                waits.append((last + wait, last := time.monotonic()))
            after, late = self._clocks.read(), self._late
            if late is not None:
                self._late = None
                if not looks.stacks:
                    looks.look()  # who has held the GIL stands there still, most likely
                self._report(late, before, after, self._collecting - collected, waits, looks)
            before, collected, last = after, self._collecting, time.monotonic()
        self._clocks.close()
        self._forget()

    def _report(
        self,
        late: tuple[float, float],
        before: _Reading,
        after: _Reading,
        collecting: float,
        waits: list[tuple[float, float]],
        looks: _Looks,
    ) -> None:
        start, end = late
        seen = Seen(
            length=end - start,
            collecting=collecting,
            computing=after.computed - before.computed,
            waiting=None if before.waited is None else (after.waited or 0.0) - before.waited,
            process=after.process - before.process,
            late=sum(max(0.0, min(woke, end) - max(due, start)) for due, woke in waits),
            asleep=after.asleep - before.asleep,
        )
        cause = cause_of(seen)
        frame = looks.blamed(others=cause == "another thread with the GIL")
        with suppress(Exception):  # whoever hears of stalls is no reason to watch no longer
            self._on_stall(Stall(seen.length, cause, frame))


class _Reading:
    """What the clocks say at one moment, in seconds."""

    __slots__ = ("asleep", "computed", "process", "waited")

    def __init__(
        self, computed: float, process: float, waited: float | None, asleep: float
    ) -> None:
        self.computed, self.process = computed, process
        self.waited, self.asleep = waited, asleep


class _Clocks:
    """The clocks that go on while a loop does not answer.

    Args:
        thread: the loop's thread, as Python counts it.
        native: the same, as the system does.
    """

    def __init__(self, thread: int, native: int) -> None:
        self.thread = thread
        self._clock: int | None = None
        with suppress(AttributeError, OSError):  # macOS and Windows have none for other threads
            self._clock = time.pthread_getcpuclockid(thread)
        self._here = time.thread_time()
        self._schedule: int | None = None
        with suppress(OSError):  # Linux alone counts how long a thread waits for a CPU
            self._schedule = os.open(f"/proc/self/task/{native}/schedstat", os.O_RDONLY)

    def computed_here(self) -> None:
        """Note how much the loop's thread has computed, in it; where no other thread can see it."""
        if self._clock is None:
            self._here = time.thread_time()

    def read(self) -> _Reading:
        """Return what the clocks say now."""
        computed = self._here
        if self._clock is not None:
            with suppress(OSError):  # the thread has ended
                computed = time.clock_gettime(self._clock)
        boot = getattr(time, "CLOCK_BOOTTIME", None)
        asleep = 0.0 if boot is None else time.clock_gettime(boot) - time.monotonic()
        return _Reading(computed, time.process_time(), self._waited(), asleep)

    def close(self) -> None:
        """Close what is open."""
        schedule, self._schedule = self._schedule, None
        if schedule is not None:
            os.close(schedule)

    def _waited(self) -> float | None:
        """Return how long the loop's thread has been ready without a CPU (proc(5), schedstat)."""
        if self._schedule is None:
            return None
        try:
            return int(os.pread(self._schedule, 100, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return None


class _Looks:
    """What was seen at the looks at a late loop.

    Args:
        thread: the loop's thread.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self.stacks: Counter[Frame] = Counter()
        self._others: Counter[Frame] = Counter()

    def look(self) -> None:
        """Look at the stacks of the threads."""
        own = threading.get_ident()
        for thread, frame in sys._current_frames().items():
            if thread == own:
                continue
            found = blamed(_stack(frame))
            if found is None:
                continue
            if thread == self._thread:
                self.stacks[found] += 1
            elif not (is_library(found.file) or frame.f_code.co_name in _WAITING):
                self._others[found] += 1

    def blamed(self, *, others: bool) -> Frame | None:
        """Return the frame that was seen most often.

        Args:
            others: whether another thread's is wanted.
        """
        seen = (self._others if others else self.stacks) or self.stacks
        return max(seen, key=seen.__getitem__, default=None)


def _stack(frame: FrameType | None) -> list[Frame]:
    """Return a thread's stack, the innermost frame first."""
    stack: list[Frame] = []
    while frame is not None and len(stack) < _DEEPEST:
        code = frame.f_code
        stack.append(Frame(code.co_filename, frame.f_lineno, code.co_qualname))
        frame = frame.f_back
    return stack


def _forget() -> None:
    for watchdog in tuple(_running):
        watchdog._forget()


after_in_child(_forget)


class _Shared:
    """A watchdog, and who hears of its stalls."""

    def __init__(self, threshold: float) -> None:
        self.listeners: list[Callable[[Stall], object]] = []
        self.watchdog = Watchdog(threshold, self._hear)

    def _hear(self, stall: Stall) -> None:
        for listener in tuple(self.listeners):
            with suppress(Exception):  # one that fails keeps no other from hearing
                listener(stall)


_shared: dict[tuple[object, float], _Shared] = {}
after_in_child(_shared.clear)


def watch(threshold: float, on_stall: Callable[[Stall], object]) -> Callable[[], None]:
    """Watch the loop that runs here; all who do it with one threshold share a watchdog.

    Args:
        threshold: what counts as a stall, in seconds.
        on_stall: called with each stall, on the watchdog's thread.

    Returns:
        What ends it, to be called in the loop; a second call changes nothing.

    Raises:
        RuntimeError: no thread can be started.
    """
    key = current_token(), threshold
    shared = _shared.get(key)
    if shared is None:
        shared = _Shared(threshold)
        shared.watchdog.start()
        _shared[key] = shared
    shared.listeners.append(on_stall)

    def stop() -> None:
        if on_stall in shared.listeners:
            shared.listeners.remove(on_stall)
        if not shared.listeners and _shared.get(key) is shared:
            del _shared[key]
            shared.watchdog.stop()

    return stop
