"""Read the curves of a run's metrics from its journals."""

from __future__ import annotations

from collections.abc import Callable

from keisei.analysis.curves import Curve
from keisei.journal.reader import RunJournal
from keisei.journal.records import as_float


def read_curves(directory: str, wanted: Callable[[str], bool]) -> dict[str, Curve]:
    """Return the curves of a run's metrics, without what was superseded.

    Their clock begins with the run's first row, and stands still between two attempts.

    Args:
        directory: the run's directory.
        wanted: says of a metric's name whether it is wanted.

    Raises:
        OSError: the directory or a journal cannot be read.
    """
    found: dict[str, Curve] = {}
    columns: dict[tuple[str, ...], list[tuple[int, Curve]]] = {}
    last_attempt, begun, clock = None, 0.0, 0.0
    for attempt, superseded, _, keys, raw in RunJournal(directory).merged():
        if superseded:
            continue
        now: float = raw[0]  # type: ignore[assignment]
        if attempt != last_attempt:
            last_attempt, begun = attempt, now - clock
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
