"""What is drawn of a series: nothing that a line through all values would show is missing."""

from __future__ import annotations

import math
import random
from array import array

from keisei.dashboard.pixels import drawn, smoothed


def test_each_column_keeps_its_extremes_and_its_ends() -> None:
    """Of many values, the first, the least, the greatest and the last of each pixel stay."""
    chance = random.Random(1)
    xs = array("d", range(10_000))
    ys = array("d", [chance.gauss(0, 1) for _ in xs])
    found = drawn(xs, ys, 97)
    assert len(found.xs) <= 4 * 98
    assert (found.low, found.high) == (min(ys), max(ys))
    width = (xs[-1] - xs[0]) / 97
    for column in range(97):
        part = [y for x, y in zip(xs, ys, strict=True) if min(int(x / width), 96) == column]
        shown = [
            y for x, y in zip(found.xs, found.ys, strict=True) if min(int(x / width), 96) == column
        ]
        assert {min(part), max(part), part[0], part[-1]} <= {*shown}
    assert list(found.xs) == sorted(found.xs)


def test_few_values_are_all_drawn() -> None:
    """Where there are fewer than pixels, each is there."""
    found = drawn([1.0, 2.0, 5.0], [3.0, 1.0, 2.0], 600)
    assert (found.xs, found.ys) == ([1.0, 2.0, 5.0], [3.0, 1.0, 2.0])


def test_a_range_has_its_neighbours() -> None:
    """A line goes on over the edges of what is shown."""
    found = drawn(range(100), array("d", range(100)), 600, 10.5, 12.5)
    assert found.xs == [10, 11, 12, 13]
    assert drawn(range(100), array("d", range(100)), 600, 200, 300).xs == [99]


def test_what_is_not_finite_breaks_the_line_and_is_counted() -> None:
    """NaN and infinities are no points; a column that has other values shows them."""
    ys = array("d", [1.0, math.nan, math.inf, 2.0])
    found = drawn([0.0, 1.0, 2.0, 3.0], ys, 600)
    assert (found.ys, found.left_out, found.high) == ([1.0, None, 2.0], 2, 2.0)
    many = array("d", [float(i) if i % 3 else math.nan for i in range(10_000)])
    found = drawn(array("d", range(10_000)), many, 10)
    assert (found.left_out, found.high) == (3334, 9998.0)
    found = drawn(array("d", range(10_000)), array("d", [math.nan]) * 10_000, 10)
    assert (found.xs, found.left_out) == ([], 10_000)


def test_nothing_and_one_value() -> None:
    """A series without values draws nothing; one x alone is a point."""
    assert drawn([], [], 100).xs == []
    assert drawn([5.0] * 10, [1.0] * 10, 1).ys == [1.0] * 10


def test_huge_values_are_no_infinity() -> None:
    """Where a sum overflows, each value is looked at, and is drawn."""
    found = drawn(array("d", range(1000)), array("d", [1e308]) * 1000, 10)
    assert (found.left_out, found.high) == (0, 1e308)


def test_smoothing_begins_with_the_first_value() -> None:
    """The start does not pull the mean to 0; what is not finite leaves it as it was."""
    assert list(smoothed([5.0, 5.0, 5.0], 0.9)) == [5.0, 5.0, 5.0] or all(
        math.isclose(y, 5.0) for y in smoothed([5.0, 5.0, 5.0], 0.9)
    )
    steps = smoothed([0.0, 1.0, math.nan, 1.0], 0.5)
    assert math.isclose(steps[1], 2 / 3)
    assert all(map(math.isfinite, steps))
    assert list(smoothed([1.0, 2.0], 0.0)) == [1.0, 2.0]
