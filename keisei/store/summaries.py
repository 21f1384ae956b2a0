"""What a run's metrics have come to: last, smallest, largest and mean, without the superseded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keisei.journal.records import Value, as_float
from keisei.store.rows import MetricSummary

MOST_METRICS = 20_000  # of a run; what is more is not summarised


@dataclass(slots=True)
class _Sum:
    last: float | None = None
    min: float = math.inf
    max: float = -math.inf
    total: float = 0.0
    count: int = 0
    finite: int = 0
    step: int | None = None


class Summaries:
    """Sums up metrics, row by row.

    NaN counts as a value, and is no number: it is the last where it came last (``None``), and
    neither the smallest nor the largest, nor part of the mean.
    """

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}

    def add(self, keys: Iterable[str], values: Iterable[Value], step: int | None) -> None:
        """Add a row.

        Args:
            keys: the metrics' names.
            values: a number for each.
            step: the row's training step, if it has one.
        """
        for key, value in zip(keys, values, strict=False):
            one = self._sums.get(key)
            if one is None:
                if len(self._sums) >= MOST_METRICS:
                    continue
                one = self._sums[key] = _Sum()
            number = as_float(value)
            one.count += 1
            one.step = step
            if math.isnan(number):
                one.last = None
                continue
            one.last = number
            one.min = min(one.min, number)
            one.max = max(one.max, number)
            if math.isfinite(number):
                one.total += number
                one.finite += 1

    def metrics(self, best: Mapping[str, str] | None = None) -> dict[str, MetricSummary]:
        """Return what the metrics have come to by now.

        Args:
            best: of which metrics `min` or `max` is the best.
        """
        return {key: _summary(one, (best or {}).get(key)) for key, one in self._sums.items()}


def _summary(one: _Sum, best: str | None) -> MetricSummary:
    low = one.min if one.min <= one.max else None
    high = one.max if low is not None else None
    return MetricSummary(
        last=one.last,
        min=low,
        max=high,
        mean=one.total / one.finite if one.finite else None,
        best={"min": low, "max": high}.get(best or ""),
        count=one.count,
        step=one.step,
    )
