"""Whether a metric is as good as it was: a verdict, by the noise that its own history has.

A run is one observation: its many rows are no more of them, for they share the run's seed. So the
noise is that between runs, and the band is where one more run (or the mean of several, each with
another seed) falls with 99 % probability when nothing has changed. Several new runs decide far
more than one does. What a history may be (`keisei.analysis.noise`) is tested by the band: a verdict
`better` or `worse` needs the value to be outside by all of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from keisei.analysis.noise import LEAST_BASELINES, Band, bands, is_skewed

Better = Literal["higher", "lower"]
Outcome = Literal["better", "worse", "same", "undecided"]

FALSE_ALARMS = 0.01  # the share of verdicts `better` or `worse` where nothing has changed
MARGIN = 0.03  # the relative difference that matters
_LARGEST = 1e150  # whose square is still a number; what is beyond has diverged
_SURE = 0.05  # the probability that an interval of the difference misses it


@dataclass(frozen=True)
class Verdict:
    """What is known of one metric against its history.

    Attributes:
        outcome: `better`, `worse`, `same`, or `undecided`.
        reason: why, in words.
        value: the mean of the new runs; ``None`` where they have none.
        expected: what the history leads to expect; ``None`` where there is no history.
        low: where the noise band begins.
        high: where it ends.
        difference: the new value's relative difference from the expected one, positive where it is
            better.
        p: the probability of so large a difference where nothing has changed.
        baselines: how many earlier runs the history has.
        runs: how many new runs there are.
        drifts: whether the history has a trend, which the noise band follows.
    """

    outcome: Outcome
    reason: str
    value: float | None = None
    expected: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    p: float | None = None
    baselines: int = 0
    runs: int = 0
    drifts: bool = False


def too_few(known: int) -> str:
    """Return why nothing is decided where few runs are comparable.

    Args:
        known: how many are.
    """
    runs = "run is" if known == 1 else "runs are"
    return f"{known} comparable {runs} too few: it takes {LEAST_BASELINES}"


def verdict(
    new: Sequence[float],
    history: Sequence[float],
    better: Better | None,
    *,
    margin: float = MARGIN,
    false_alarms: float = FALSE_ALARMS,
) -> Verdict:
    """Return the verdict on one metric.

    Args:
        new: its value in each new run, NaN where it has come to NaN.
        history: its value in each comparable earlier run, the oldest first.
        better: which way it is better; ``None`` where nobody has said it.
        margin: the relative difference that matters.
        false_alarms: the share of alarms where nothing has changed.
    """
    known = [value for value in history if math.isfinite(value) and abs(value) < _LARGEST]
    new = [value if abs(value) < _LARGEST else math.nan for value in new]
    undecided = Verdict("undecided", "", baselines=len(known), runs=len(new))
    if not new:
        return replace(undecided, reason="the run has no value of it")
    if not known:
        return replace(undecided, reason="no comparable run has a value of it")
    undecided = replace(undecided, expected=statistics.fmean(known))
    if not all(map(math.isfinite, new)):
        return replace(undecided, outcome="worse", reason="it is no finite number any more")
    if len(known) < LEAST_BASELINES:
        reason = too_few(len(known))
        return replace(undecided, reason=reason, value=statistics.fmean(new))
    try:
        found = _judged(list(new), known, margin, false_alarms)
    except OverflowError:
        return replace(undecided, reason="its values are too far apart to be computed with")
    if better is None:
        if found.outcome == "same":
            return found
        return replace(found, outcome="undecided", reason="nobody has said which way it is better")
    if better == "lower":
        flipped: dict[Outcome, Outcome] = {"better": "worse", "worse": "better"}
        difference = None if found.difference is None else -found.difference
        outcome = flipped.get(found.outcome, found.outcome)
        found = replace(found, outcome=outcome, difference=difference)
    return found


def verdicts(
    new: Mapping[str, Sequence[float]],
    history: Mapping[str, Sequence[float]],
    better: Mapping[str, Better],
    *,
    margin: float = MARGIN,
    false_alarms: float = FALSE_ALARMS,
) -> dict[str, Verdict]:
    """Return the verdict on each metric, with no more false alarms in all than on one.

    The correction for many metrics is Holm's: the smallest probability is held to the strictest
    bound.

    Args:
        new: the values of the new runs, by metric.
        history: the values of the comparable earlier runs, the oldest first, by metric.
        better: which way each metric is better, where that is known.
        margin: the relative difference that matters.
        false_alarms: the share of alarms where nothing has changed.
    """
    alone = {
        key: verdict(
            values, history.get(key, ()), better.get(key), margin=margin, false_alarms=false_alarms
        )
        for key, values in new.items()
    }
    decided = sorted(
        (one.p, key) for key, one in alone.items() if one.p is not None and key in better
    )
    for rank, (p, _) in enumerate(decided):
        if p > false_alarms / (len(decided) - rank):
            for _, left in decided[rank:]:
                if alone[left].outcome in ("better", "worse"):
                    reason = f"by itself it would be {alone[left].outcome}, but not of so many"
                    alone[left] = replace(alone[left], outcome="undecided", reason=reason)
            break
    return alone


def _judged(new: list[float], history: list[float], margin: float, alarms: float) -> Verdict:
    """Return the verdict on a metric of which more is better."""
    logs = all(value > 0 for value in (*new, *history)) and is_skewed(history)
    if logs:
        new, history = [math.log(v) for v in new], [math.log(v) for v in history]
    found = bands(new, history)
    expected, value = found[0].expected, statistics.fmean(new)
    low, high = (
        min(band.expected - band.width(alarms) for band in found),
        max(band.expected + band.width(alarms) for band in found),
    )
    gap = value - expected
    if logs:
        scale, relative = 1.0, math.expm1(gap)
    else:
        scale = abs(expected)
        relative = gap / scale if scale else math.copysign(math.inf, gap) if gap else 0.0
    p = _probability(found, value)
    farthest = max(abs(value - band.expected) + band.width(_SURE) for band in found)
    outcome: Outcome = "undecided"
    reason = "it is inside the noise band, which is too wide to tell"
    if farthest <= margin * scale:
        outcome, reason = "same", f"it differs by less than {margin:.0%} for sure"
    elif p <= alarms:
        outcome, reason = "better" if gap > 0 else "worse", "it is outside the noise band"
    if logs:
        value, expected, low, high = map(math.exp, (value, expected, low, high))
    return Verdict(
        outcome,
        reason,
        value=value,
        expected=expected,
        low=low,
        high=high,
        difference=relative,
        p=p,
        baselines=len(history),
        runs=len(new),
        drifts=any(band.drifts for band in found),
    )


def _probability(found: Sequence[Band], value: float) -> float:
    """Return the probability of a value so far from what is expected, by all that may be."""
    if len({value > band.expected for band in found}) > 1:
        return 1.0
    return max(band.probability(value) for band in found)
