"""What a source of the sampler says each time, and the lines that carry it to the program."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, SupportsFloat, TypeVar

T = TypeVar("T")
U = TypeVar("U")

_MOST, _LONGEST = 1000, 200  # values of each kind, and characters of a name


class Counter(NamedTuple):
    """A counter of energy that only grows, until it begins anew.

    Attributes:
        joules: how far it is.
        size: where it begins anew, in joules; 0 where it does not.
    """

    joules: float
    size: float = 0.0


@dataclass
class Reading:
    """What one source has read.

    Attributes:
        metrics: numbers by name, without the `system/` before it.
        energy: counters of energy, by what uses it.
        problems: what is wrong with parts of the source, by the part.
        unmeasured: why something cannot be measured on this machine, by what it is.
        about: what changes rarely: limits, devices.
        runs: numbers of the runs' own, by the key of a directory.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    energy: dict[str, Counter] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, dict[str, float]] = field(default_factory=dict)


class Source(Protocol):
    """Something that is read again and again, on a thread of its own: it may hang.

    Attributes:
        name: what it is called.
    """

    name: str

    def read(self) -> Reading | None:
        """Read it; ``None`` where there is nothing of its kind on this machine.

        Raises:
            Exception: it cannot be read now.
        """
        ...


@dataclass
class Sample:
    """All that was read at one time.

    Attributes:
        metrics: numbers by name, without the `system/` before it.
        energy: counters of energy, by what uses it.
        states: how each source, or part of one, is, and why: `ok`, `absent` (there is nothing of
            its kind), `unmeasured` (it cannot be measured here), `lost` (a part of a source does
            not answer any more), `failed` or `hung`.
        about: what changes rarely.
        runs: numbers of the runs' own, by the key of a directory.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    energy: dict[str, Counter] = field(default_factory=dict)
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, source: str, reading: Reading) -> None:
        """Add what a source has read."""
        self.metrics |= finite(reading.metrics)
        self.energy |= reading.energy
        self.about |= reading.about
        for key, metrics in reading.runs.items():
            self.runs.setdefault(key, {}).update(finite(metrics))
        self.states[source] = ("ok", "")
        for part, why in reading.unmeasured.items():
            self.states[part] = ("unmeasured", why)
        for part, problem in reading.problems.items():
            self.states[part] = ("lost", problem)


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that are numbers, rounded to what may be meant."""
    return {key: _rounded(value) for key, value in metrics.items() if math.isfinite(value)}


def _rounded(value: float) -> float:
    return round(float(value), 3)


def line_of(sample: Sample) -> bytes:
    """Return a sample as a line."""
    data = [sample.metrics, sample.energy, sample.states, sample.about, sample.runs]
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def sample_in(line: bytes) -> Sample | None:
    """Return the sample that a line holds; ``None`` where it is none."""
    try:
        metrics, energy, states, about, runs = json.loads(line)
        return Sample(
            {str(key): float(value) for key, value in metrics.items()},
            {key: Counter(float(joules), float(size)) for key, (joules, size) in energy.items()},
            {key: (str(state), str(problem)) for key, (state, problem) in states.items()},
            dict(about),
            {key: dict(values) for key, values in runs.items()},
        )
    except (ValueError, TypeError, AttributeError):
        return None


def grown(before: Counter, now: Counter) -> float:
    """Return how much a counter of energy has grown, in joules, where it may have begun anew.

    Args:
        before: how far it was.
        now: how far it is. One that is lower has run over, where it is known when it does; else it
            was reset, and has counted from 0.
    """
    if now.joules >= before.joules:
        return now.joules - before.joules
    return now.joules + max(0.0, now.size - before.joules) if now.size else now.joules


def without(
    others: Set[str], sample: Sample, drawn: Mapping[str, float], about: Mapping[str, Any]
) -> tuple[Sample, Mapping[str, float], Mapping[str, Any]]:
    """Return what was read without what is of some sources.

    Args:
        others: these sources.
        sample: what was read.
        drawn: what was drawn since the last sample, by what has drawn it.
        about: what changes rarely.
    """
    if not others:
        return sample, drawn, about

    def left(found: Mapping[str, T]) -> dict[str, T]:
        return {k: value for k, value in found.items() if k.partition(".")[0] not in others}

    metrics, energy, states = left(sample.metrics), left(sample.energy), left(sample.states)
    kept = Sample(metrics, energy, states, left(sample.about), sample.runs)
    return kept, left(drawn), left(about)


def under(name: str, reading: object) -> Reading:
    """Return what the source of somebody else's has read, checked, with its name before each name.

    Args:
        name: the source's name.
        reading: what it has read.

    Raises:
        TypeError: it is no reading, or a part of it is of another kind.
        ValueError: it is too much, or a name in it is none.
    """
    if not isinstance(reading, Reading):
        raise TypeError(f"read() has returned a {type(reading).__name__}, and no Reading")

    def named(found: Mapping[str, T], read: Callable[[T], U]) -> dict[str, U]:
        if len(found) > _MOST:
            raise ValueError(f"read() has returned {len(found)} values, and may return {_MOST}")
        return {f"{name}.{_checked(key)}": read(value) for key, value in found.items()}

    return Reading(
        metrics=named(reading.metrics, _number),
        energy=named(reading.energy, _counter),
        problems=named(reading.problems, _line),
        unmeasured=named(reading.unmeasured, _line),
        about=named(reading.about, lambda value: value if _is_plain(value) else _line(value)),
    )


def _checked(key: object) -> str:
    if not isinstance(key, str) or not 0 < len(key) <= _LONGEST or not key.isprintable():
        raise ValueError(f"read() has returned a name that is none: {key!r:.80}")
    return key


def _number(value: object) -> float:
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"read() has returned a {type(value).__name__} for a number")
    return float(value)


def _counter(value: object) -> Counter:
    if not isinstance(value, Counter):
        raise TypeError(f"read() has returned a {type(value).__name__} for a Counter")
    joules, size = _number(value.joules), _number(value.size)
    if not (math.isfinite(joules) and math.isfinite(size)):
        raise ValueError("read() has returned a Counter that is not finite")
    return Counter(joules, size)


def _line(value: object) -> str:
    return str(value)[:_LONGEST]


def _is_plain(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
