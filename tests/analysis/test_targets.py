"""The time to a target: when it is reached, from which side, and the verdict on it."""

from __future__ import annotations

import math

import pytest

from keisei.analysis.curves import Curve
from keisei.analysis.targets import Reached, reached, side_of, target_of, without_numbers

FAST = [Reached(at, 100.0) for at in (10.0, 12.0, 11.0, 30.0)]


def curve(values: list[float], every: int = 1) -> Curve:
    steps: list[int | None] = [every * place for place in range(len(values))]
    return Curve(steps, [10.0 + place for place in range(len(values))], values)


def test_a_target_is_reached_once() -> None:
    """The first step and time count, from above or from below."""
    found = reached(curve([0.0, 5.0, 3.0, 9.0], 10), 4.0, "higher")
    assert found == (Reached(10, 30), Reached(11.0, 13.0))
    found = reached(curve([9.0, math.nan, 3.0, 9.0], 10), 4.0, "lower")
    assert found == (Reached(20, 30), Reached(12.0, 13.0))
    assert reached(curve([0.0]), 4.0, "higher") == (Reached(None, 0), Reached(None, 10.0))
    assert reached(Curve([None], [1.0], [5.0]), 4.0, "higher") == (None, Reached(1.0, 1.0))
    assert reached(Curve(), 4.0, "higher") == (None, Reached(None, 0.0))


def test_the_side_is_that_from_which_most_curves_begin() -> None:
    """A curve that begins above its target falls to it; NaN at its begin is passed over."""
    assert side_of([curve([math.nan, 5.0]), curve([6.0]), curve([0.0])], 1.0) == "lower"
    assert side_of([curve([0.0, 5.0])], 1.0) == "higher"
    assert side_of([], 1.0) == "higher"


def test_a_target_is_a_metric_and_a_number() -> None:
    """The last equals sign counts, and what is no finite number is refused."""
    assert target_of("a=b=-2e3") == ("a=b", -2000.0)
    for text in ("loss", "loss=", "=3", "loss=nan", "loss=1,5"):
        with pytest.raises(ValueError, match="loss=0.2"):
            target_of(text)


def test_where_all_reach_it_the_numbers_decide() -> None:
    """And no verdict is given without them."""
    assert without_numbers([Reached(10.0, 20.0)], FAST) is None


def test_a_target_that_is_not_reached_is_worse_once_all_others_had_reached_it() -> None:
    """Before that, or where an earlier run has not reached it either, nothing is decided."""
    late, early = (without_numbers([Reached(None, end)], FAST) for end in (30.0, 29.0))
    assert late is not None
    assert early is not None
    assert (late.outcome, early.outcome) == ("worse", "undecided")
    missed = without_numbers([Reached(None, 99.0)], [*FAST, Reached(None, 99.0)])
    assert missed is not None
    assert (missed.outcome, missed.reason[:6]) == ("undecided", "1 of 5")
    few = without_numbers([Reached(None, 99.0)], FAST[:3])
    assert few is not None
    assert (few.outcome, "too few" in few.reason) == ("undecided", True)
