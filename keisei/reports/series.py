"""Read the series of metrics to draw them: thinned as they come, their extremes kept."""

from __future__ import annotations

import math
import operator
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

from keisei.journal.merging import Reduction
from keisei.journal.reader import RunJournal, Value
from keisei.journal.records import SYSTEM, as_float

Axis = Literal["step", "time", "row"]

_LARGEST = 1e300  # beyond it, differences overflow
_BATCH = 1 << 16  # rows between two reports of the progress
_LIMIT, _COLUMNS = 1 << 18, 1 << 13  # so many points are thinned to the extremes of so many columns


@dataclass
class Points:
    """Points to be joined by a line, except where there is a gap.

    Attributes:
        xs: where they are.
        ys: finite numbers, one for each.
        gaps: where the line is broken.
    """

    xs: array[float] = field(default_factory=lambda: array("d"))
    ys: array[float] = field(default_factory=lambda: array("d"))
    gaps: array[float] = field(default_factory=lambda: array("d"))

    def thin(self, columns: int) -> None:
        """Sort by x, and keep the first, the least, the greatest and the last of each column."""
        if not all(map(operator.le, self.xs, self.xs[1:])):
            order = sorted(range(len(self.xs)), key=self.xs.__getitem__)
            self.xs = array("d", map(self.xs.__getitem__, order))
            self.ys = array("d", map(self.ys.__getitem__, order))
        self.gaps = array("d", sorted(self.gaps))
        if len(self.gaps) > 4 * columns:
            self.gaps = array("d", [self.gaps[i] for i, _ in _columns(self.gaps, columns)])
        if len(self.xs) <= 4 * columns:
            return
        xs, ys = array("d"), array("d")
        for start, end in _columns(self.xs, columns):
            part = self.ys[start:end]
            least, greatest = part.index(min(part)), part.index(max(part))
            for index in sorted({0, least, greatest, len(part) - 1}):
                xs.append(self.xs[start + index])
                ys.append(part[index])
        self.xs, self.ys = xs, ys

    def segments(self) -> Iterator[tuple[array[float], array[float]]]:
        """Yield the stretches without a gap, in order of x."""
        start = 0
        for gap in self.gaps:
            end = bisect_left(self.xs, gap, start)
            if end > start:
                yield self.xs[start:end], self.ys[start:end]
                start = end
        if start < len(self.xs):
            yield self.xs[start:], self.ys[start:]


def _columns(xs: array[float], columns: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the points in each column that is not empty; xs are sorted."""
    low, width = xs[0], (xs[-1] - xs[0]) / columns
    start = 0
    while start < len(xs):
        column = int((xs[start] - low) / width) if width else columns
        end = bisect_right(xs, low + (column + 1) * width, start + 1)
        yield start, end
        start = end


@dataclass
class Series:
    """One metric of one run.

    Attributes:
        rows: how many rows have it.
        points: its values.
        smooth: the same, smoothed; ``None`` where that is not asked for.
        left_out: how many values cannot be drawn, by what they are.
        new_xs: what is read and is not yet among the points.
        new_ys: the values of that.
    """

    weight: float
    log: bool
    rows: int = 0
    points: Points = field(default_factory=Points)
    smooth: Points | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    new_xs: list[float] = field(default_factory=list)
    new_ys: list[Value] = field(default_factory=list)
    _mean: float = 0.0
    _share: float = 0.0

    def settle(self) -> None:
        """Move what is in `new_xs` and `new_ys` to the points."""
        if not self.new_xs:
            return
        self.rows += len(self.new_xs)
        try:
            ys = array("d", self.new_ys)
        except OverflowError:
            ys = array("d", map(as_float, self.new_ys))
        low = 0.0 if self.log else -_LARGEST
        if not (all(map(math.isfinite, ys)) and low < min(ys) and max(ys) < _LARGEST):
            flaws = list(map(self._flaw, ys))
            self.left_out.update(flaw for flaw in flaws if flaw is not None)
            drawn = (y if flaw is None else math.nan for y, flaw in zip(ys, flaws, strict=True))
            ys = array("d", drawn)
        self._extend(self.points, ys)
        if self.weight:
            self.smooth = self.smooth or Points()
            self._extend(self.smooth, array("d", map(self._smoothed, ys)))
        self.new_xs.clear()
        self.new_ys.clear()

    def _extend(self, points: Points, ys: array[float]) -> None:
        if all(map(math.isfinite, ys)):
            points.xs.extend(self.new_xs)
            points.ys.extend(ys)
        else:
            for x, y in zip(self.new_xs, ys, strict=True):
                if math.isfinite(y):
                    points.xs.append(x)
                    points.ys.append(y)
                else:
                    points.gaps.append(x)
        if max(len(points.xs), len(points.gaps)) > _LIMIT:
            points.thin(_COLUMNS)

    def _smoothed(self, y: float) -> float:
        """Return the mean of all so far, each earlier one weighing less by the same factor."""
        if not math.isfinite(y):
            return y
        self._share = self.weight * self._share + 1 - self.weight
        self._mean += (1 - self.weight) / self._share * (y - self._mean)
        return self._mean

    def _flaw(self, y: float) -> str | None:
        """Return why a value cannot be drawn; ``None`` where it can."""
        if -_LARGEST < y < _LARGEST:
            return "not above 0" if self.log and y <= 0 else None
        return "NaN" if math.isnan(y) else "infinite" if math.isinf(y) else "too large"

    @property
    def note(self) -> str:
        """What is not drawn; empty where all is."""
        return ", ".join(f"{count:,} {what}" for what, count in self.left_out.items())


def keys_of(run: RunJournal) -> list[str]:
    """Return the names of all metrics of a run, or of one part, in the order in which they came.

    Those of its machine, `system/...`, come last.
    """
    keys: dict[str, None] = {}
    for attempt in run.attempts():
        with run.open(attempt) as reader:
            keys.update(dict.fromkeys(key for shape in reader.shapes() for key in shape))
    return sorted(keys, key=lambda key: key.startswith(SYSTEM))


def has_steps(run: RunJournal) -> bool:
    """Return whether any row of a run, or of one part, has a step."""
    for attempt in run.attempts():
        with run.open(attempt) as reader:
            if reader.has_steps():
                return True
    return False


def reduced_series(
    run: RunJournal,
    wanted: Collection[str],
    reduce: Reduction,
    *,
    weight: float = 0.0,
    log: bool = False,
) -> dict[str, Series]:
    """Return the series of a run, merged by step over all its parts; see `RunJournal.columns`.

    Args:
        run: the run's reader.
        wanted: names of metrics.
        reduce: how the parts' values at a step become one.
        weight: as for `read_series`.
        log: as for `read_series`.
    """
    found = {}
    for key in wanted:
        steps, values = run.columns(key, reduce=reduce)
        one = found[key] = Series(weight, log)
        for step, value in zip(steps, values, strict=True):
            x = as_float(step or 0)
            if -_LARGEST < x < _LARGEST:
                one.new_xs.append(x)
                one.new_ys.append(value)
            else:
                one.left_out["without an x"] += 1
        one.settle()
    return found


def read_series(
    run: RunJournal,
    wanted: Collection[str],
    axis: Axis,
    progress: Callable[[int], None],
    *,
    weight: float = 0.0,
    log: bool = False,
) -> dict[str, Series]:
    """Return the series of a run, merged over its attempts, without what is superseded.

    Args:
        run: the reader of the run, or of one of its parts.
        wanted: names of metrics.
        axis: what x is: the training step (a row without one takes the step before it), the
            time since the first row in seconds, or the row's number.
        progress: called now and then with the number of rows read so far.
        weight: how much of the smoothed value stays at each row, under 1; 0 does not smooth.
        log: whether only numbers above 0 can be drawn.
    """
    series = {key: Series(weight, log) for key in wanted}
    shapes: dict[tuple[str, ...], list[tuple[int, Series]]] = {}
    row, step, begun = 0, math.nan, math.nan
    system = any(key.startswith(SYSTEM) for key in wanted)
    for count, (_, superseded, _, keys, raw) in enumerate(run.merged(system=system)):
        if count % _BATCH == 0:
            progress(count)
            for one in series.values():
                one.settle()
        if superseded:
            continue
        if keys not in shapes:
            shapes[keys] = [(i, series[key]) for i, key in enumerate(keys, 1) if key in series]
        if axis == "step":
            if raw[-1] is not None:
                step = as_float(raw[-1])
            x = step
        elif axis == "time":
            begun = raw[0] if math.isnan(begun) else begun  # type: ignore[assignment]
            x = raw[0] - begun  # type: ignore[operator]
        else:
            x = row
        row += 1
        if -_LARGEST < x < _LARGEST:
            for index, one in shapes[keys]:
                one.new_xs.append(x)
                one.new_ys.append(raw[index])  # type: ignore[arg-type]
        else:
            for _, one in shapes[keys]:
                one.left_out["without an x"] += 1
    for one in series.values():
        one.settle()
    return series
