"""Student's t distribution, held against scipy's."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from keisei.analysis.student import quantile, tail


@pytest.mark.parametrize("df", [1, 2, 4.5, 9, 30, 1000])
@pytest.mark.parametrize("t", [1e-6, 0.3, 1.0, -2.5, 8.0, 1e4])
def test_tails_are_scipys(df: float, t: float) -> None:
    """For few and for many degrees of freedom."""
    assert tail(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-8, abs=1e-300)


@pytest.mark.parametrize("df", [1, 3, 9, 200])
@pytest.mark.parametrize("probability", [0.5, 0.05, 0.01, 1e-4])
def test_quantiles_are_scipys(df: float, probability: float) -> None:
    """They are the tails' inverse."""
    expected = stats.t.isf(probability / 2, df)
    assert quantile(probability, df) == pytest.approx(expected, rel=1e-9)


def test_the_ends_are_whole() -> None:
    """Zero is exceeded always, infinity never, and NaN stays NaN."""
    assert tail(0.0, 3) == 1.0
    assert tail(math.inf, 3) == 0.0
    assert math.isnan(tail(math.nan, 3))
