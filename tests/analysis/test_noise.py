"""The noise between runs, by numbers that are worked out elsewhere."""

from __future__ import annotations

import math
import statistics

import pytest
from scipy import stats

from keisei.analysis.noise import bands
from keisei.analysis.verdicts import verdict, verdicts

HISTORY = [1.0, 1.04, 0.97, 1.01, 0.98, 1.02, 0.99, 1.03, 0.96, 1.0]
LIKELY = [1.0, 1.02, 0.97, 1.03, 0.99, 1.04, 1.03, 1.02, 1.05, 1.05]  # to have a trend


def test_the_band_of_several_runs_is_that_of_the_t_test() -> None:
    """Of two samples of the same spread, as scipy has it."""
    new = [0.95, 0.99, 0.96, 0.98]
    (band,) = bands(new, HISTORY)
    expected = stats.ttest_ind(new, HISTORY)
    assert band.probability(statistics.fmean(new)) == pytest.approx(expected.pvalue, rel=1e-6)


def test_the_band_of_one_run_is_wide() -> None:
    """It has the error of one value and of the history's mean, and few degrees of freedom."""
    (band,) = bands([1.0], HISTORY)
    assert band.error == pytest.approx(statistics.stdev(HISTORY) * math.sqrt(1.1))
    assert band.df == 3.5
    assert band.width(0.01) == pytest.approx(stats.t.isf(0.005, 3.5) * band.error)


def test_a_likely_trend_is_no_reason_for_an_alarm() -> None:
    """What is outside with the trend and inside without it is not told, nor the other way round."""
    flat, trend = bands([1.0] * 5, LIKELY)
    assert (flat.drifts, trend.drifts) == (False, True)
    between = (flat.expected + trend.expected) / 2
    assert verdict([between], LIKELY, "higher", margin=0.0).p == 1.0
    assert verdict([0.5], LIKELY, "higher").outcome == "worse"


def test_an_alarm_among_many_metrics_needs_a_smaller_probability() -> None:
    """One that would do by itself is undecided among thirty, and the reason says so."""
    others = {f"m{n}": [1.0] for n in range(29)}
    value = next(
        step / 1000
        for step in range(990, 500, -1)
        if verdict([step / 1000] * 2, HISTORY, "higher").outcome == "worse"
    )
    new = {"m": [value] * 2, **others}
    found = verdicts(new, dict.fromkeys(new, HISTORY), dict.fromkeys(new, "higher"))
    assert (found["m"].outcome, "of so many" in found["m"].reason) == ("undecided", True)
