"""How long runs take to a target: the first time that a metric has reached a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from keisei.analysis.curves import Curve
from keisei.analysis.noise import LEAST_BASELINES
from keisei.analysis.verdicts import Better, Verdict, too_few


@dataclass(frozen=True)
class Reached:
    """When a run has reached a target, by its steps or by its clock.

    Attributes:
        at: when it has; ``None`` where it has not.
        end: how far the run has come.
    """

    at: float | None
    end: float


def target_of(text: str) -> tuple[str, float]:
    """Return the metric and the value of a target, as in `loss=0.2`.

    Raises:
        ValueError: the text is no target.
    """
    name, _, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise ValueError(f"a target is a metric and a number, as in loss=0.2, and not {text!r}")
    return name, number


def side_of(curves: Sequence[Curve], target: float) -> Better:
    """Return from which side curves reach a target: from above where most of them begin there."""
    firsts = [next(filter(math.isfinite, curve.values), target) for curve in curves]
    above = sum(first > target for first in firsts)
    return "lower" if above * 2 > len(firsts) else "higher"


def reached(curve: Curve, target: float, better: Better) -> tuple[Reached | None, Reached]:
    """Return when a curve has first reached a target, by steps and by seconds.

    Args:
        curve: the curve.
        target: the value to reach.
        better: whether it is reached from below (`higher`) or from above (`lower`).

    Returns:
        By steps, ``None`` where its rows have none; and by seconds since the run's first row.
    """
    found = next(
        (
            (step, time)
            for step, time, value in zip(curve.steps, curve.times, curve.values, strict=True)
            if (value >= target if better == "higher" else value <= target)
        ),
        None,
    )
    seconds = Reached(None if found is None else found[1], curve.times[-1] if curve.times else 0.0)
    if (last := curve.last_step) is None or (found is not None and found[0] is None):
        return None, seconds
    return Reached(None if found is None else found[0], last), seconds


def without_numbers(new: Sequence[Reached], history: Sequence[Reached]) -> Verdict | None:
    """Return the verdict on a time to a target where a run has not reached it.

    Args:
        new: the new runs' times.
        history: the comparable earlier runs' times.

    Returns:
        ``None`` where all have reached it, and the numbers decide.
    """
    late = sum(one.at is None for one in new)
    missed = sum(one.at is None for one in history)
    if not late and not missed:
        return None
    known = [one.at for one in history if one.at is not None]
    verdict = partial(Verdict, baselines=len(known), runs=len(new))
    if missed:
        reason = f"{missed} of {len(history)} comparable runs have not reached it"
        return verdict("undecided", reason)
    if len(known) < LEAST_BASELINES:
        reason = too_few(len(known))
        return verdict("undecided", reason)
    expected, slowest = math.fsum(known) / len(known), max(known)
    if any(one.at is None and one.end >= slowest for one in new):
        reason = "it is not reached where each comparable run had reached it"
        return verdict("worse", reason, expected=expected)
    reason = "it is not reached yet, nor had each comparable run reached it by then"
    return verdict("undecided", reason, expected=expected)
