"""The phases of one session, or of a member of its run, and how fast its steps come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from inspect import iscoroutinefunction
from time import monotonic, time
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from keisei.errors import JournalError
from keisei.journal.throughput import SteadyTime, Throughput, time_to_go
from keisei.monitoring.phases import EVENT, SETUP, TRAINING, WAITING, Entry, PhaseClock
from keisei.session.recorder import Recorder
from keisei.session.usage_part import UsagePart

P = ParamSpec("P")
T = TypeVar("T")

LOOK = 5.0  # seconds from one look at the rows to the next
FIRST, EVERY = 10.0, 55.0  # seconds of life before the first event, and between two
SHORT = 5.0  # seconds; a shorter life without phases of the program's own leaves no event
APART = 1.0  # seconds between two events, whatever happens

_inside: ContextVar[Phase | None] = ContextVar("keisei_phase", default=None)


class Phase:
    """A phase of the program: a context manager, and a decorator of functions.

    Args:
        phases: the phases of the session.
        name: its name.
        check: called on entering; raises where no phase may be entered.
        own: whether it is keisei's own.
    """

    __slots__ = ("_below", "_check", "_entry", "_name", "_own", "_phases")

    def __init__(
        self,
        phases: Phases,
        name: str,
        check: Callable[[], None] | None = None,
        *,
        own: bool = False,
    ) -> None:
        self._phases, self._name, self._check, self._own = phases, name, check, own
        self._entry: Entry | None = None
        self._below: Phase | None = None

    def __enter__(self) -> None:
        """Enter the phase; see `SessionManager.phase`.

        Raises:
            RuntimeError: the block of this object lasts already.
        """
        if self._check is not None:
            self._check()
        if self._entry is not None:
            raise RuntimeError(
                f"phase {self._name!r} is entered already: call phase() for each block anew"
            )
        self._below = _lasting(_inside.get())
        outer = self._below
        while outer is not None and outer._phases is not self._phases:
            outer = outer._below
        within = None if outer is None else outer._entry
        self._entry = self._phases.enter(self._name, within, own=self._own)
        _inside.set(self)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the phase; what leaves the block goes on."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._phases.leave(entry)
        # Contexts that were copied in the block reach what is outside it through this one.
        below = self._below = _lasting(self._below)
        if _inside.get() is self:
            _inside.set(below)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return the function with each of its calls in the phase; a coroutine function too."""
        if iscoroutinefunction(function):

            @wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._anew():
                    return await function(*args, **kwargs)

            return cast(Callable[P, T], awaited)

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._anew():
                return function(*args, **kwargs)

        return called

    def _anew(self) -> Phase:
        return Phase(self._phases, self._name, self._check, own=self._own)


def _lasting(phase: Phase | None) -> Phase | None:
    """Return the innermost phase that still lasts: of this one and those that it is within."""
    while phase is not None and (phase._entry is None or phase._entry.over):
        phase = phase._below
    return phase


class Phases(UsagePart):
    """The phases of one session, or of a member of its run.

    Args:
        recorder: what it records with.
        total: how many steps the training takes, where that is set.
        measured: whether they are measured; where not, a phase may be entered all the same.
    """

    def __init__(
        self, recorder: Recorder, total: int | None = None, *, measured: bool = True
    ) -> None:
        self._recorder, self._total, self._measured = recorder, total, measured
        self._guard = threading.RLock()  # a signal handler may record the end
        self._clock: PhaseClock | None = None
        self._throughput, self._steady = Throughput(), SteadyTime(time(), monotonic())
        self._seen: tuple[float, int] | None = None  # the row that was looked at last
        self._started_at = 0.0
        self._said = self._next_look = 0.0
        self._over = self._has_said = False

    def enter(self, name: str, outer: Entry | None, *, own: bool) -> Entry:
        """Enter a phase, on any thread; where the session has not begun, or is over, in name."""
        with self._guard:
            clock = self._clock
            if clock is None or self._over:
                entry = Entry(name, None, own=own)
                entry.over = True
                return entry
            return clock.enter(name, outer, monotonic(), own=own)

    def leave(self, entry: Entry) -> None:
        """Leave a phase, on any thread."""
        with self._guard:
            if self._clock is not None and not self._over:
                self._clock.leave(entry, monotonic())

    def own(self, name: str) -> Phase:
        """Return a block of keisei's own phase: what the program waits for."""
        return Phase(self, name, own=True)

    def add_stall(self, seconds: float, ended: float | None = None) -> None:
        """Take what a stall of the loop has held off the training; thread-safe.

        Args:
            seconds: how long the loop was held.
            ended: until when, by the monotonic clock; without it, until now.
        """
        with self._guard:
            if self._clock is not None and not self._over and seconds > 0:
                now = monotonic() if ended is None else ended
                self._clock.stalled(now - seconds, now)

    def claimed(self) -> None:
        """Begin to measure: with the set-up."""
        if not self._measured:
            return
        with self._guard:
            self._started_at = time()
            self._clock = PhaseClock(monotonic())
            self._said = self._clock.begun

    def begin(self) -> None:
        """Note that the set-up is over."""
        self._go_over(SETUP, TRAINING)

    def leave_loop(self) -> None:
        """Note that the body is over: what comes is a wait."""
        with self._guard:
            if self._clock is not None and not self._over:
                self._clock.begin(WAITING, monotonic())

    def record_end(self) -> None:
        """Log what it has come to; where there is nothing to say, log nothing."""
        self._look()
        self._say(0.0, SHORT)
        with self._guard:
            self._over = True

    def tick(self) -> None:
        """Look how far the training is, and log what it has come to, about once a minute."""
        now = monotonic()
        if now < self._next_look or self._clock is None:
            return
        self._next_look = now + LOOK
        journal = self._recorder.journal
        if journal is not None and journal.has_rows:
            self._go_over(SETUP, TRAINING)  # the steps were taken one by one
        self._look()
        self._say(EVERY if self._has_said else FIRST, FIRST)

    def saved(self) -> None:
        """Log how far the training is, for a checkpoint knows this: what comes may be lost."""
        self._look()
        self._say(APART if self._has_said else 0.0, SHORT)

    def summary(self) -> dict[str, Any]:
        """Return the phases of this attempt and its throughput by now, as plain data."""
        self._look()
        return {"phases": self._record()}

    def _go_over(self, before: str, after: str) -> None:
        with self._guard:
            if self._clock is not None and not self._over and self._clock.base == before:
                self._clock.begin(after, monotonic())

    def _look(self) -> None:
        """See how far the rows are that are written."""
        if (journal := self._recorder.journal) is None:
            return
        with self._guard:
            first, last = journal.first_and_last()
            for point in (last,) if self._throughput else (first, last):
                if point is not None and point != self._seen:
                    at = self._steady.time_of(point[0], time(), monotonic())
                    self._throughput.add(at, point[1])
                    self._seen = point

    def _record(self) -> dict[str, Any] | None:
        with self._guard:
            if self._clock is None:
                return None
            now = self._clock.ended if self._over else monotonic()
            known = self._clock.record(now)
            speed, last = self._throughput, self._throughput.last
            if last is None:
                return {**known, "throughput": None}
            recent = speed.recent()
            left = None if self._total is None else time_to_go(last[1], self._total, recent)
            first = speed.first or last
            known["throughput"] = {
                "first_step": first[1],
                "first_time": first[0],
                "last_step": last[1],
                "last_time": last[0],
                "steps_per_s": speed.overall(),
                "recent_steps_per_s": recent,
                "total_steps": self._total,
                "time_to_go_s": left,
            }
            return known

    def _say(self, apart: float, life: float) -> None:
        """Log the record, where the last is some time ago, and there is something to say.

        Args:
            apart: how long the last one has to be ago, in seconds.
            life: how long the session has to have lived, in seconds, where the program has
                entered no phase of its own.
        """
        with self._guard:
            clock, now = self._clock, monotonic()
            if clock is None or self._over or now - self._said < apart:
                return
            if not clock.entered and now - clock.begun < life:
                return
            record = self._record()
            self._said, self._has_said = now, True
        with suppress(JournalError):  # it is over, or another owner has the run
            if record is not None and (journal := self._recorder.first()) is not None:
                journal.log_event(EVENT, {"started_at": self._started_at, **record})
