"""What is drawn of a series: for each column of pixels the first, least, greatest and last value.

A line through these covers the same pixels as one through all values, however many there are.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

MOST_COLUMNS = 4_000  # pixels of a wall
_NEGLIGIBLE = 1e-12


@dataclass
class Drawn:
    """Points to be joined by a line.

    Attributes:
        xs: where they are.
        ys: the value of each; ``None`` breaks the line.
        low: the least value, not counting what is not finite; ``None`` where there is none.
        high: the greatest.
        left_out: how many values are not finite.
    """

    xs: list[float] = field(default_factory=list)
    ys: list[float | None] = field(default_factory=list)
    low: float | None = None
    high: float | None = None
    left_out: int = 0

    def add(self, x: float, y: float) -> None:
        """Add a value."""
        if math.isfinite(y):
            self.xs.append(x)
            self.ys.append(y)
            self.low = y if self.low is None else min(self.low, y)
            self.high = y if self.high is None else max(self.high, y)
        else:
            self.left_out += 1
            if self.ys and self.ys[-1] is not None:
                self.xs.append(x)
                self.ys.append(None)


def drawn(
    xs: Sequence[float],
    ys: Sequence[float],
    columns: int,
    low: float | None = None,
    high: float | None = None,
) -> Drawn:
    """Return what is drawn of a series between two xs, and its neighbours on either side.

    Args:
        xs: where the values are, in order.
        ys: the values.
        columns: how many pixels wide the chart is.
        low: the first x that is shown; ``None`` for that of the series.
        high: the last.
    """
    found = Drawn()
    if not len(xs):
        return found
    low = xs[0] if low is None else low
    high = xs[-1] if high is None else high
    start = max(0, bisect_left(xs, low) - 1)
    end = min(len(xs), bisect_right(xs, high) + 1)
    columns = max(1, min(columns, MOST_COLUMNS))
    if end - start <= 4 * columns or not high > low:
        end = min(end, start + 4 * MOST_COLUMNS)
        for x, y in zip(xs[start:end], ys[start:end], strict=True):
            found.add(x, y)
        return found
    width, at = (high - low) / columns, start
    while at < end:
        column = math.floor((xs[at] - low) / width)
        behind = bisect_right(xs, low + (column + 1) * width, at + 1, end)
        _column(found, xs, ys, at, max(behind, at + 1))
        at = max(behind, at + 1)
    return found


def _column(found: Drawn, xs: Sequence[float], ys: Sequence[float], at: int, behind: int) -> None:
    part = ys[at:behind]
    if not math.isfinite(sum(part)):  # quick where all is well; what is not is looked at closely
        finite = [y for y in part if math.isfinite(y)]
        found.left_out += len(part) - len(finite)
        if not finite:
            if found.ys and found.ys[-1] is not None:
                found.xs.append(xs[at])
                found.ys.append(None)
            return
        part = finite
    first, last, least, greatest = part[0], part[-1], min(part), max(part)
    ends = (least, greatest) if abs(first - least) <= abs(first - greatest) else (greatest, least)
    middle = xs[(at + behind) // 2]
    points = ((xs[at], first), (middle, ends[0]), (middle, ends[1]), (xs[behind - 1], last))
    for x, y in points[: 4 if len(part) > 1 else 1]:
        found.xs.append(x)
        found.ys.append(y)
    found.low = least if found.low is None else min(found.low, least)
    found.high = greatest if found.high is None else max(found.high, greatest)


def smoothed(ys: Sequence[float], weight: float) -> array[float]:
    """Return the mean of all values so far, each earlier one weighing less by the same factor.

    Args:
        ys: the values; what is not finite takes the mean before it.
        weight: how much of the mean stays at each value, from 0 to under 1.
    """
    own = 1.0 - weight
    if math.isfinite(sum(ys)):
        means = array("d", accumulate(ys, lambda mean, y: weight * mean + own * y, initial=0.0))
        means = means[1:]
    else:
        means, mean = array("d"), 0.0
        for y in ys:
            mean = weight * mean + own * y if math.isfinite(y) else mean
            means.append(mean)
    share, at = 1.0, 0  # what the start, 0, still weighs
    while at < len(means) and weight > 0:
        share *= weight
        if share < _NEGLIGIBLE:
            break
        means[at] /= 1.0 - share
        at += 1
    return means
