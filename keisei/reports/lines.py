"""The lines of a report's charts, as data for JSON: what is drawn of each metric of each run."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from keisei.dashboard.details import plain
from keisei.dashboard.pixels import Drawn, drawn
from keisei.dashboard.series import RunSeries
from keisei.store.rows import MetricSummary

MOST_LINES = 400  # of all charts together
MOST_METRICS = 100
_VALUES = 130_000  # numbers of all lines together: about 1.2 MB
_COLUMNS = (120, 1_500)  # pixels: the least and the most that a line is drawn for
_DIGITS = 6  # of a value; more where all of a line are near each other


def most_metrics(runs: int) -> int:
    """Return how many metrics are drawn of so many runs."""
    return max(1, min(MOST_METRICS, MOST_LINES // max(1, runs)))


class Lines:
    """What the charts are drawn from; the xs that several lines have stand there once.

    Args:
        names: the runs' names, as they are shown.
        lines: how many lines there will be, at most.

    Attributes:
        lines: each line.
        xs: the xs of the lines.
    """

    def __init__(self, names: Sequence[str], lines: int) -> None:
        self._names = names
        self._columns = max(_COLUMNS[0], min(_COLUMNS[1], _VALUES // 4 // max(1, lines)))
        self._known: dict[bytes, int] = {}
        self._times: dict[tuple[int, int], int | None] = {}
        self.lines: list[dict[str, Any]] = []
        self.xs: list[list[float]] = []

    def add(self, number: int, run: RunSeries, key: str) -> MetricSummary | None:
        """Add the line of a metric; return what it has come to, ``None`` where it has no value.

        Args:
            number: which run, counted from 0.
            run: its series, read.
            key: the metric's name.
        """
        data: dict[str, Any] = {"metric": key, "run": self._names[number], "colour": number}
        xs, values = run.series(key, "step")
        has_steps = bool(len(values))
        if not has_steps:
            xs, values = run.series(key, "time")
        if not len(values):
            return None
        found = drawn(xs, values, self._columns)
        data |= {"count": len(values), "last": plain(values[-1]), "left_out": found.left_out}
        data |= {"low": found.low, "high": found.high, "ys": _rounded(found)}
        at = self._place(found.xs)
        if not has_steps:
            data["time"] = at
        else:
            data["step"] = at
            if (number, at) not in self._times:
                self._times[number, at] = self._time(run, key, xs, values, found)
            if (time := self._times[number, at]) is not None:
                data["time"] = time
            else:  # by time they come in another order
                later = drawn(*run.series(key, "time"), self._columns)
                data |= {"time": self._place(later.xs), "time_ys": _rounded(later)}
        self.lines.append(data)
        last, is_number = values[-1], values[-1] == values[-1]
        step = int(xs[-1]) if has_steps and math.isfinite(xs[-1]) else None
        return MetricSummary(
            last if is_number else None, found.low, found.high, count=len(values), step=step
        )

    def left_out(self) -> dict[str, int]:
        """Return how many values of each metric are no finite number, and so are not drawn."""
        return {line["metric"]: line["left_out"] for line in self.lines if line["left_out"]}

    def _place(self, xs: Sequence[float]) -> int:
        known = array("d", xs).tobytes()
        if known not in self._known:
            self._known[known] = len(self.xs)
            self.xs.append([int(x) if x.is_integer() else round(x, 3) for x in xs])
        return self._known[known]

    def _time(
        self,
        run: RunSeries,
        key: str,
        steps: Sequence[float],
        values: Sequence[float],
        found: Drawn,
    ) -> int | None:
        """Return the xs of a line by time; ``None`` where its values have another order then."""
        times, ordered = run.series(key, "time")
        if array("d", ordered).tobytes() != array("d", values).tobytes():
            return None
        return self._place([times[min(bisect_left(steps, x), len(times) - 1)] for x in found.xs])


def _rounded(found: Drawn) -> list[float | int | None]:
    """Return the values in as few digits as nobody sees."""
    if found.low is None or found.high is None:
        return [*found.ys]
    largest, spread = max(abs(found.low), abs(found.high)), found.high - found.low
    ratio = largest / spread if spread else 1.0
    more = math.ceil(math.log10(ratio)) if 1.0 < ratio < math.inf else 0
    form = f".{min(17, _DIGITS + more)}g"
    return [None if y is None else _short(float(format(y, form))) for y in found.ys]


def _short(number: float) -> float | int:
    return int(number) if abs(number) < 1e15 and number.is_integer() else number
