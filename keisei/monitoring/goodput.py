"""What the time of a run was used for, over all its attempts, and how much of it was worth it.

A resume leaves behind what was trained after its checkpoint: that time is *lost*. From the last
sign of life of an attempt to the start of the next one the run is *down*. What is left of the
training, as a share of it all, is the run's goodput.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keisei.journal.throughput import speed, time_to_go
from keisei.monitoring.phases import DOWN, LOST, TRAINING

Seconds = dict[str, float]


@dataclass(frozen=True)
class Life:
    """An attempt of a run's owner or of one of its ranks, as its journal has it.

    Attributes:
        attempt: the attempt.
        started: when it has begun, in seconds since the epoch.
        seen: its last sign of life.
        said: what it has said of its time, and when, in order; each is about all until then.
    """

    attempt: int
    started: float
    seen: float
    said: Sequence[tuple[float, Mapping[str, Any]]] = ()

    @property
    def last(self) -> Mapping[str, Any]:
        """What it has said last."""
        return self.said[-1][1] if self.said else {}

    def seconds(self) -> Seconds:
        """Return the time of each phase: what came after its last word was training."""
        told = _seconds(self.last)
        since = self.seen - (self.said[-1][0] if self.said else self.started)
        told[TRAINING] = told.get(TRAINING, 0.0) + max(0.0, since)
        return told

    def trained(self, begin: float, end: float) -> float:
        """Return how much of a time it has trained, in seconds, as far as it has said when."""
        return max(0.0, self._trained_until(end) - self._trained_until(begin))

    def _trained_until(self, moment: float) -> float:
        known = [(self.started, 0.0)]
        known += [(at, _seconds(said).get(TRAINING, 0.0)) for at, said in self.said]
        known.append((max(self.seen, known[-1][0]), self.seconds().get(TRAINING, 0.0)))
        at = bisect_right([each[0] for each in known], moment)
        if at in (0, len(known)):
            return known[max(0, at - 1)][1]
        (before, low), (after, high) = known[at - 1], known[at]
        return low + (high - low) * (moment - before) / (after - before)


@dataclass(frozen=True)
class Behind:
    """What a resume has left behind in one attempt.

    Attributes:
        attempt: the attempt.
        begin: from when on, in seconds since the epoch.
        end: until when.
    """

    attempt: int
    begin: float
    end: float = math.inf


@dataclass
class TimeUsed:
    """What the time of a run, or of one of its ranks, was used for.

    Attributes:
        seconds: the time of each phase; together they are all of it.
        attempts: how many attempts it has had.
    """

    seconds: Seconds = field(default_factory=dict)
    attempts: int = 0

    @property
    def wall_s(self) -> float:
        """All of the time, in seconds."""
        return math.fsum(self.seconds.values())

    @property
    def goodput(self) -> float | None:
        """The share of the time in training whose result was kept."""
        return self.seconds.get(TRAINING, 0.0) / self.wall_s if self.wall_s > 0 else None

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        wall = self.wall_s
        ordered = dict(sorted(self.seconds.items(), key=lambda one: -one[1]))
        return {
            "wall_s": wall,
            "seconds": ordered,
            "shares": {name: value / wall for name, value in ordered.items()} if wall > 0 else {},
            "goodput": self.goodput,
            "attempts": self.attempts,
        }


def time_used(lives: Sequence[Life], left: Iterable[Behind]) -> TimeUsed:
    """Return what the time was used for.

    Args:
        lives: the attempts of the owner, or of one rank, in order.
        left: what its resumes have left behind; no two of one attempt overlap.
    """
    seconds: Seconds = {}
    for number, life in enumerate(lives):
        for name, value in life.seconds().items():
            seconds[name] = seconds.get(name, 0.0) + value
        if number:
            down = life.started - lives[number - 1].seen
            seconds[DOWN] = seconds.get(DOWN, 0.0) + max(0.0, down)
    lost = math.fsum(
        life.trained(each.begin, each.end)
        for each in left
        for life in lives
        if life.attempt == each.attempt
    )
    if lost > 0:
        lost = min(lost, seconds.get(TRAINING, 0.0))
        seconds[TRAINING] = seconds.get(TRAINING, 0.0) - lost
        seconds[LOST] = lost
    known = {name: value for name, value in seconds.items() if value > 0}
    return TimeUsed(known, len({life.attempt for life in lives}))


def together(each: Iterable[TimeUsed]) -> TimeUsed:
    """Return what the time of several ranks was used for: their times are added up."""
    total = TimeUsed()
    for one in each:
        total.attempts = max(total.attempts, one.attempts)
        for name, value in one.seconds.items():
            total.seconds[name] = total.seconds.get(name, 0.0) + value
    return total


def throughput(lives: Sequence[Life]) -> dict[str, Any] | None:
    """Return how fast the steps of a run come, and how long it still takes.

    The overall speed is that of the steps that were kept, in the time of all attempts' rows.

    Args:
        lives: the owner's attempts, in order.
    """
    told = [one for life in lives if isinstance(one := life.last.get("throughput"), Mapping)]
    try:
        first, last = min(int(one["first_step"]) for one in told), int(told[-1]["last_step"])
        rows = math.fsum(float(one["last_time"]) - float(one["first_time"]) for one in told)
        recent, total = float(told[-1]["recent_steps_per_s"]), told[-1].get("total_steps")
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    return {
        "last_step": last,
        "steps_per_s": speed((0.0, first), (rows, last)),
        "recent_steps_per_s": recent,
        "total_steps": total,
        "time_to_go_s": time_to_go(last, total, recent) if isinstance(total, int) else None,
    }


def _seconds(said: Mapping[str, Any]) -> Seconds:
    """Return the seconds that an event names; whatever is none is left out."""
    told = said.get("seconds")
    if not isinstance(told, Mapping):
        return {}
    return {
        str(name): float(value)
        for name, value in told.items()
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }
