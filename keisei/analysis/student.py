"""Student's t distribution, as the tests and the bands need it."""

from __future__ import annotations

import math
from functools import lru_cache

_STEPS = 300  # of the continued fraction, which needs far fewer
_TINY = 1e-300


def tail(t: float, df: float) -> float:
    """Return the probability that a value of Student's t is farther from zero than `t`.

    Args:
        t: the value.
        df: the degrees of freedom, over 0.
    """
    if math.isnan(t):
        return math.nan
    return 1.0 if t == 0 else _incomplete_beta(df / 2, 0.5, df / (df + t * t))


@lru_cache(512)
def quantile(probability: float, df: float) -> float:
    """Return the distance from zero that a value of Student's t exceeds with a probability.

    Args:
        probability: of both tails together, between 0 and 1.
        df: the degrees of freedom, over 0.
    """
    low, high = 0.0, 1.0
    while tail(high, df) > probability:
        low, high = high, high * 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, df) > probability else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function (Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            result *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return result


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
