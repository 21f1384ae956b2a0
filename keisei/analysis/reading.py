"""Read the curves of a run's metrics from its journals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeGuard

from keisei.analysis.curves import Curve
from keisei.analysis.lived import LivedTime, Mark
from keisei.journal.reader import RunJournal
from keisei.journal.records import as_float
from keisei.monitoring.phases import EVENT


def read_curves(directory: str, wanted: Callable[[str], bool]) -> dict[str, Curve]:
    """Return the curves of a run's metrics, without what was superseded.

    Their clock begins with the run's first row, and stands still between two attempts. Where the
    wall clock was set meanwhile, the attempt's events say how long it has lived.

    Args:
        directory: the run's directory.
        wanted: says of a metric's name whether it is wanted.

    Raises:
        OSError: the directory or a journal cannot be read.
    """
    found: dict[str, Curve] = {}
    columns: dict[tuple[str, ...], list[tuple[int, Curve]]] = {}
    journal, lived = RunJournal(directory), LivedTime(())
    last_attempt, begun, clock = None, 0.0, 0.0
    for attempt, superseded, seq, keys, raw in journal.merged():
        if superseded:
            continue
        if is_first := attempt != last_attempt:
            last_attempt, lived = attempt, LivedTime(_marks(journal, attempt))
        now = lived.at(seq, raw[0])  # type: ignore[arg-type]
        if is_first:
            begun = now - clock
        clock = max(clock, now - begun)
        if keys not in columns:
            columns[keys] = [
                (place, found.setdefault(key, Curve()))
                for place, key in enumerate(keys, 1)
                if wanted(key)
            ]
        for place, curve in columns[keys]:
            curve.times.append(clock)
            curve.steps.append(raw[-1])  # type: ignore[arg-type]
            curve.values.append(as_float(raw[place]))  # type: ignore[arg-type]
    return found


def _marks(journal: RunJournal, attempt: int) -> list[Mark]:
    """Return what an attempt's phases say of how long it has lived."""
    marks: list[Mark] = []
    with journal.open(attempt) as reader:
        for seq, when, data in reader.events_named(EVENT):
            if isinstance(data, Mapping):
                begun, lived = (data.get(name) for name in ("started_at", "wall_s"))
                if _is_time(begun) and _is_time(lived):
                    marks = marks or [Mark(-1, begun, 0.0)]
                    marks.append(Mark(seq, when, lived))
    return marks


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
