"""What a session has used, from samples: peaks, means, energy; and the sum over attempts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from keisei.monitoring.readings import Sample

EVENT = "usage.resources"  # what a session has used by then; the last one of an attempt counts
STATE = "resources"  # how a source is, once that has changed
TROUBLES = ("hung", "failed", "lost")
_LOWEST = frozenset(["disk.free_bytes"])  # of which the peak is the lowest value
_MEANS = ("cpu", "cpu_cores", "cpu_host", "memory", "load", "power_watts")
_FAST_FOR, _FAST = 60.0, 1.0  # seconds
_FIRST_RECORD, _RECORD = 10.0, 60.0


class Change(NamedTuple):
    """A source, or a part of one, is otherwise than before.

    Attributes:
        source: which one.
        state: how it is.
        problem: what is wrong with it.
    """

    source: str
    state: str
    problem: str


def pace(age: float, interval: float) -> float:
    """Return after how long a session's next sample is due, in seconds: often while it is young."""
    return min(_FAST, interval) if age < _FAST_FOR else interval


def is_record_due(age: float, recorded_at: float | None) -> bool:
    """Return whether what was used is to be recorded now.

    Args:
        age: how old the session is, in seconds.
        recorded_at: how old it was at the last record.
    """
    return age >= _FIRST_RECORD if recorded_at is None else age - recorded_at >= _RECORD


def changes(known: Mapping[str, tuple[str, str]], sample: Sample) -> list[Change]:
    """Return which sources have got into trouble, or out of it.

    Args:
        known: how each one was.
        sample: how they are; one that is not in it is as it was, but for a part that was lost.
    """
    found = []
    for source, (state, problem) in sample.states.items():
        before = known.get(source, ("ok", ""))[0]
        if state != before and (state in TROUBLES or before in TROUBLES):
            found.append(Change(source, state, problem))
    for part, (state, _) in known.items():
        whole = part.partition(".")[0]
        if state == "lost" and part not in sample.states and _is_ok(whole, sample):
            found.append(Change(part, "ok", ""))
    return found


def _is_ok(source: str, sample: Sample) -> bool:
    names = ("host", "disk") if source in ("processes", "disk") else (source, "amd")
    return any(sample.states.get(name, ("", ""))[0] == "ok" for name in names)


class Totals:
    """What one session has used by now.

    Args:
        host: the name of the machine.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self.samples = 0
        self._seconds = 0.0
        self._peaks: dict[str, float] = {}
        self._sums: dict[str, tuple[float, float]] = {}
        self._energy: dict[str, float] = {}
        self._about: Mapping[str, Any] = {}
        self.states: dict[str, tuple[str, str]] = {}

    def add(
        self,
        metrics: Mapping[str, float],
        drawn: Mapping[str, float],
        seconds: float,
        about: Mapping[str, Any],
    ) -> None:
        """Add a sample.

        Args:
            metrics: what was read, by name.
            drawn: what was drawn since the last one, in joules, by what has drawn it.
            seconds: how long ago the last one was, or the session's begin.
            about: limits and devices.
        """
        self.samples += 1
        self._seconds += seconds
        self._about = about
        for name, value in metrics.items():
            pick = min if name in _LOWEST else max
            self._peaks[name] = pick(self._peaks.get(name, value), value)
            if name.rpartition(".")[2] in _MEANS:
                total, time = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = total + value * seconds, time + seconds
        for source, joules in drawn.items():
            self._energy[source] = self._energy.get(source, 0.0) + joules

    @property
    def energy(self) -> float:
        """What was drawn in all, in joules."""
        return round(sum(self._energy.values()), 3)

    def charged(self) -> dict[str, object]:
        """Return of what was used that which may have a price: GPUs, and energy in joules."""
        return {
            "gpus": self._about.get("gpus"),
            "energy_j": self.energy if self._energy else None,
        }

    def record(self) -> dict[str, Any]:
        """Return what was used, as plain data."""
        about = dict(self._about)
        energy = {name: round(joules, 3) for name, joules in sorted(self._energy.items())}
        means = {n: round(total / time, 3) for n, (total, time) in self._sums.items() if time}
        return {
            "host": self._host,
            "nodes": 1,
            "gpus": about.pop("gpus", None),
            "devices": about.pop("devices", []),
            "limits": about,
            "samples": self.samples,
            "seconds": round(self._seconds, 3),
            "energy_j": self.energy if energy else None,
            "energy": energy,
            "peaks": dict(self._peaks),
            "means": means,
            "states": {
                source: f"{state}: {problem}" if problem else state
                for source, (state, problem) in sorted(self.states.items())
                if state not in ("ok", "absent")
            },
        }


def folded(records: Iterable[tuple[int, str, object]]) -> dict[str, Any] | None:
    """Return what a whole run has used; ``None`` where nothing was measured.

    Args:
        records: attempt, part and data of the events, in order: of each attempt and part the last
            counts.
    """
    last: dict[tuple[int, str], Mapping[str, Any]] = {}
    for attempt, part, data in records:
        if isinstance(data, Mapping):
            last[attempt, part] = data
    if not last:
        return None
    peaks: dict[str, float] = {}
    sums: dict[str, tuple[float, float]] = {}
    energy: dict[str, float] = {}
    gpus: dict[int, float] = {}
    nodes: dict[int, set[str]] = {}
    seconds = samples = joules = 0.0
    for (attempt, _), data in last.items():
        took = number(data.get("seconds")) or 0.0
        seconds, samples = seconds + took, samples + (number(data.get("samples")) or 0.0)
        joules += number(data.get("energy_j")) or 0.0
        nodes.setdefault(attempt, set()).add(str(data.get("host")))
        if (count := number(data.get("gpus"))) is not None:
            gpus[attempt] = gpus.get(attempt, 0.0) + count
        for name, value in numbers(data.get("peaks")).items():
            pick = min if name in _LOWEST else max
            peaks[name] = pick(peaks.get(name, value), value)
        for name, value in numbers(data.get("means")).items():
            total, time = sums.get(name, (0.0, 0.0))
            sums[name] = total + value * took, time + took
        for name, value in numbers(data.get("energy")).items():
            energy[name] = energy.get(name, 0.0) + value
    latest = list(last.values())[-1]
    return {
        "seconds": round(seconds, 3),
        "samples": int(samples),
        "nodes": max(len(hosts) for hosts in nodes.values()),
        "gpus": int(max(gpus.values())) if gpus else None,
        "energy_j": round(joules, 3) if energy else None,
        "energy": {name: round(value, 3) for name, value in sorted(energy.items())},
        "peaks": peaks,
        "means": {name: round(total / time, 3) for name, (total, time) in sums.items() if time},
        "limits": numbers(latest.get("limits")),
        "states": {str(k): str(v) for k, v in _mapping(latest.get("states")).items()},
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def numbers(value: object) -> dict[str, float]:
    """Return what of a mapping is numbers."""
    found = {str(name): number(one) for name, one in _mapping(value).items()}
    return {name: one for name, one in found.items() if one is not None}


def number(value: object) -> float | None:
    """Return a finite number as such; ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e300 and math.isfinite(value) else None
