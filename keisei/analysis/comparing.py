"""What runs differ in, by subject: how they went, config, code, packages, machine, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from keisei.analysis.baselines import snapshot_of
from keisei.analysis.comparable import differences
from keisei.analysis.directions import directions
from keisei.analysis.reading import read_curves
from keisei.analysis.snapshots import subjects
from keisei.analysis.targets import reached, side_of
from keisei.store.directories import best_in
from keisei.store.rows import RunRow

SUBJECTS = ("code", "packages", "machine")  # of provenance
_OWN = "system/"  # what a run uses, and not what it comes to


@dataclass(frozen=True)
class Compared:
    """What runs differ in.

    Attributes:
        parts: the values by the part of the run and the key in it, one for each run; ``None`` where
            a run has none.
        not_recorded: the names of the runs of which a part is not recorded, by the part.
    """

    parts: dict[str, dict[str, list[object]]]
    not_recorded: dict[str, list[str]] = field(default_factory=dict)


def compare(rows: Sequence[RunRow], targets: Mapping[str, float]) -> Compared:
    """Return what runs differ in; it reads what they were started from, and what they came to.

    Of `run`, `metrics` and `time to target` all is returned, of the rest what differs.

    Args:
        rows: the runs.
        targets: values of metrics to which the time is taken.

    Raises:
        OSError: a time to a target is asked for, and a run's journal cannot be read.
    """
    run: dict[str, list[object]] = {
        "status": [row.status for row in rows],
        "failure": [row.failure for row in rows],
        "attempt": [row.attempt for row in rows],
        "duration": [row.duration_s for row in rows],
        "host": [row.host for row in rows],
    }
    if any(row.cost.get("totals") or row.cost.get("unpriced") for row in rows):
        run["cost"] = [_cost(row.cost) for row in rows]
    run["energy_kwh"] = [row.cost.get("energy_kwh") for row in rows]
    for name in ("failure", "energy_kwh"):
        if not any(value is not None for value in run[name]):
            del run[name]
    parts = {"run": run, "config": differences([row.config for row in rows])}
    started_from = [subjects(snapshot_of(row)) for row in rows]
    not_recorded = {}
    for subject in SUBJECTS:
        known = [found.get(subject) for found in started_from]
        parts[subject] = _differences(known)
        if missing := [row.name for row, one in zip(rows, known, strict=True) if one is None]:
            not_recorded[subject] = missing
    names = {key for row in rows for key in row.metrics if not key.startswith(_OWN)}
    parts["metrics"] = {
        key: [None if (one := row.metrics.get(key)) is None else one.last for row in rows]
        for key in sorted(names)
    }
    if targets:
        parts["time to target"] = _times(rows, targets)
    return Compared(parts, not_recorded)


def _cost(known: Mapping[str, object]) -> dict[str, object] | None:
    """Return the totals of a run by their currency, and how many things have no price, if any."""
    totals, unpriced = known.get("totals"), known.get("unpriced")
    found = dict(totals) if isinstance(totals, Mapping) else {}
    return {**found, **({"unpriced": unpriced} if unpriced else {})} or None


def _differences(known: Sequence[Mapping[str, object] | None]) -> dict[str, list[object]]:
    """Return where those that are known differ; the others have ``None`` everywhere."""
    found = differences([one for one in known if one is not None])
    there = [one is not None for one in known]
    filled = {}
    for key, values in found.items():
        left = iter(values)
        filled[key] = [next(left) if is_there else None for is_there in there]
    return filled


def _times(rows: Sequence[RunRow], targets: Mapping[str, float]) -> dict[str, list[object]]:
    """Return the steps and the seconds that each run has taken to each target."""
    read = [read_curves(row.directory, targets.__contains__) for row in rows]
    better = directions(targets, best=best_in(rows[0].config))
    found: dict[str, list[object]] = {}
    for key, target in targets.items():
        curves = [curves[key] for curves in read if key in curves]
        side = better.get(key) or side_of(curves, target)
        times = [reached(one[key], target, side) if key in one else None for one in read]
        steps = [None if one is None or one[0] is None else one[0].at for one in times]
        found[f"steps to {key}={target:g}"] = list(steps)
        found[f"seconds to {key}={target:g}"] = [
            None if one is None or one[1].at is None else round(one[1].at, 3) for one in times
        ]
    return found
