"""The noise between runs: where the mean of new runs falls when nothing has changed.

Three things are more than a t-test of two samples. A single run may come out of longer tails than
the normal distribution's, which ten runs do not show, so the freedom of its t is held down. A
history may have a trend: where it is clear, it is followed; where it is only likely, what is
expected with it and what is expected without it both have to be left behind. And where values are
less skewed as logarithms, they are taken so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from keisei.analysis.student import quantile, tail

LEAST_BASELINES = 4
_FREEDOM = 3.5  # of Student's t for each new run, at most: what a heavy-tailed single run takes
_LIKELY, _CLEAR = 0.05, 0.005  # the probabilities of an order of values without a trend


@dataclass(frozen=True)
class Band:
    """Where the mean of the new runs is expected.

    Attributes:
        expected: its middle.
        error: the standard error of the difference from it.
        df: the degrees of freedom of that error.
        drifts: whether a trend is followed.
    """

    expected: float
    error: float
    df: float
    drifts: bool = False

    def width(self, probability: float) -> float:
        """Return the distance from the middle that is exceeded with a probability."""
        return quantile(probability, self.df) * self.error

    def probability(self, value: float) -> float:
        """Return the probability of a value so far from the middle."""
        gap = value - self.expected
        return tail(gap / self.error, self.df) if self.error > 0 else float(gap == 0)


def bands(new: Sequence[float], history: Sequence[float]) -> list[Band]:
    """Return where the mean of new runs is expected: without a trend, with one, or by both.

    Args:
        new: a value for each new run, at least one.
        history: a value for each earlier run, the oldest first, at least `LEAST_BASELINES`.

    Returns:
        One band or two, the likelier first.
    """
    n, mean = len(history), statistics.fmean(history)
    variance = statistics.variance(history)
    flat = _band(new, mean, variance, n - 1, 1 / n)
    if n <= LEAST_BASELINES or variance == 0:
        return [flat]
    middle = (n - 1) / 2
    squares = sum((i - middle) ** 2 for i in range(n))
    slope = sum((i - middle) * (v - mean) for i, v in enumerate(history)) / squares
    rest = sum((v - mean - slope * (i - middle)) ** 2 for i, v in enumerate(history)) / (n - 2)
    error = math.sqrt(rest / squares)
    by_chance = tail(slope / error, n - 2) if error > 0 else 0.0
    if by_chance > _LIKELY:
        return [flat]
    ahead = n - middle
    leverage = 1 / n + ahead**2 / squares
    trend = _band(new, mean + slope * ahead, rest, n - 2, leverage, drifts=True)
    return [trend] if by_chance <= _CLEAR else [flat, trend]


def is_skewed(values: Sequence[float]) -> bool:
    """Return whether positive values lie more evenly about their middle as logarithms."""
    return abs(_skewness([math.log(value) for value in values])) < abs(_skewness(values))


def _band(
    new: Sequence[float],
    expected: float,
    variance: float,
    df: float,
    leverage: float,
    *,
    drifts: bool = False,
) -> Band:
    runs = len(new)
    if runs > 1:  # their own spread is a part of what is known of the noise
        own = statistics.variance(new) * (runs - 1)
        variance, df = (variance * df + own) / (df + runs - 1), df + runs - 1
    error = math.sqrt(variance * (1 / runs + leverage))
    return Band(expected, error, min(df, _FREEDOM * runs), drifts)


def _skewness(values: Sequence[float]) -> float:
    mean, spread = statistics.fmean(values), statistics.pstdev(values)
    return sum(((v - mean) / spread) ** 3 for v in values) / len(values) if spread else 0.0
