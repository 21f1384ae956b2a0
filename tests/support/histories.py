"""Simulated histories of a metric, and what other methods than keisei's say of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from keisei.analysis.curves import Curve, at_end
from keisei.analysis.verdicts import verdict

Values = NDArray[np.float64]  # a row for each history, the earlier runs before the new ones
Draw = Callable[[np.random.Generator, int, int, int], Values]
Alarms = NDArray[np.float64]  # of each history: -1 worse, 1 better, 0 neither

NOISE = 0.02


def normal(rng: np.random.Generator, times: int, baselines: int, runs: int) -> Values:
    """Normal noise between runs."""
    values: Values = 1 + NOISE * rng.standard_normal((times, baselines + runs))
    return values


def heavy_tailed(rng: np.random.Generator, times: int, baselines: int, runs: int) -> Values:
    """Student's t with three degrees of freedom, of the same spread."""
    values: Values = 1 + NOISE * rng.standard_t(3, (times, baselines + runs)) / np.sqrt(3)
    return values


def drifting(rng: np.random.Generator, times: int, baselines: int, runs: int) -> Values:
    """Each run half of the noise better than the one before it."""
    values = normal(rng, times, baselines, runs)
    return values + NOISE / 2 * np.minimum(np.arange(baselines + runs), baselines)


def drifting_slowly(rng: np.random.Generator, times: int, baselines: int, runs: int) -> Values:
    """Each run a tenth of the noise better than the one before it."""
    values = normal(rng, times, baselines, runs)
    return values + NOISE / 10 * np.minimum(np.arange(baselines + runs), baselines)


def two_machines(rng: np.random.Generator, times: int, baselines: int, runs: int) -> Values:
    """Every second earlier run was on a machine of another kind, and 10 % lower, and is counted."""
    values = normal(rng, times, baselines, runs)
    values[:, 1:baselines:2] -= 0.1
    return values


def noisy_rows(rng: np.random.Generator, times: int, baselines: int, runs: int) -> Values:
    """The noise is that between the 200 rows of a run, of which its end is taken."""
    every = 1 + NOISE * rng.standard_normal((times, baselines + runs, 200))
    steps: list[int | None] = list(range(200))
    ends = [at_end(Curve(steps, [], row), 199) for row in every.reshape(-1, 200).tolist()]
    return np.array(ends, dtype=float).reshape(times, -1)


def by_keisei(earlier: Values, new: Values) -> tuple[Alarms, Alarms]:
    """Return keisei's alarms, and 1 where it says `same`."""
    pairs = zip(new.tolist(), earlier.tolist(), strict=True)
    found = [verdict(now, before, "higher").outcome for now, before in pairs]
    alarms = [float(one == "better") - (one == "worse") for one in found]
    return np.array(alarms), np.array([float(one == "same") for one in found])


def by_rank(earlier: Values, new: Values) -> Alarms:
    """Return the alarms of the exact test of Mann and Whitney, at 1 % on both sides together."""
    if new.shape[1] == 1:  # 2 of 11 is the least probability
        return np.zeros(len(new))
    found = stats.mannwhitneyu(new, earlier, axis=1, method="exact")
    middle = earlier.shape[1] * new.shape[1] / 2
    return np.where(found.pvalue <= 0.01, np.sign(found.statistic - middle), 0.0)


def by_permutation(earlier: Values, new: Values) -> Alarms:
    """Return the alarms of the permutation test of the means, of 1,000 permutations."""
    runs, both = new.shape[1], np.concatenate([earlier, new], axis=1)
    chosen = list(itertools.combinations(range(both.shape[1]), runs))
    picks = np.linspace(0, len(chosen) - 1, min(len(chosen), 1000)).astype(int)
    members = np.zeros((both.shape[1], len(picks)))
    for column, pick in enumerate(picks):
        members[list(chosen[pick]), column] = 1
    sums, own = both @ members, new.sum(axis=1)[:, None]
    low = ((sums <= own + 1e-12).sum(axis=1) + 1) / (len(picks) + 1)
    high = ((sums >= own - 1e-12).sum(axis=1) + 1) / (len(picks) + 1)
    return np.where(2 * np.minimum(low, high) <= 0.01, np.where(low < high, -1.0, 1.0), 0.0)


def by_bootstrap(earlier: Values, new: Values) -> Alarms:
    """Return the alarms of a bootstrap band of 99 %, of 500 draws."""
    rng, (times, baselines) = np.random.default_rng(5), earlier.shape
    gaps = np.empty((times, 500))
    for draw in range(500):
        runs = rng.integers(0, baselines, new.shape)
        means = rng.integers(0, baselines, earlier.shape)
        gaps[:, draw] = np.take_along_axis(earlier, runs, 1).mean(1)
        gaps[:, draw] -= np.take_along_axis(earlier, means, 1).mean(1)
    low, high = np.quantile(gaps, (0.005, 0.995), axis=1)
    gap = new.mean(axis=1) - earlier.mean(axis=1)
    return np.where(gap < low, -1.0, np.where(gap > high, 1.0, 0.0))


def by_threshold(earlier: Values, new: Values) -> Alarms:
    """Return the alarms of a fixed threshold of 5 %."""
    gap = new.mean(axis=1) / earlier.mean(axis=1) - 1
    return np.where(gap < -0.05, -1.0, np.where(gap > 0.05, 1.0, 0.0))
