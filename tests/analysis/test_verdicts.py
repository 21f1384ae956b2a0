"""Verdicts: what they say of equal and of different runs, and how often they are wrong."""

from __future__ import annotations

import math
import random

import pytest

from keisei.analysis.noise import LEAST_BASELINES
from keisei.analysis.verdicts import Better, verdict, verdicts

NOISE = 0.02


def normal(rng: random.Random) -> float:
    return 1 + NOISE * rng.gauss(0, 1)


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.5])
def test_three_baselines_are_too_few(loss: float) -> None:
    """The verdict is undecided, whatever the difference is, and says how many it takes."""
    found = verdict([1 - loss], [0.98, 1.0, 1.02], "higher")
    assert found.outcome == "undecided"
    assert str(LEAST_BASELINES) in found.reason


def test_what_surely_does_not_matter_is_the_same() -> None:
    """A difference that is certain, and smaller than the margin, is none."""
    history = [1.0, 1.0001, 0.9999, 1.0, 1.0001]
    assert verdict([0.99], history, "higher").outcome == "same"
    assert verdict([0.99], history, "higher", margin=0.001).outcome == "worse"
    assert verdict([1.0], [1.0] * 5, "higher").outcome == "same"
    assert verdict([0.5], [1.0] * 5, "higher").outcome == "worse"


@pytest.mark.parametrize(("better", "outcome"), [("higher", "worse"), ("lower", "better")])
def test_the_direction_counts(better: Better, outcome: str) -> None:
    """Less is worse of a return and better of a loss; the difference is signed the same way."""
    found = verdict([0.5], [1.0, 1.01, 0.99, 1.0, 1.02], better)
    assert found.outcome == outcome
    assert found.difference is not None
    assert (found.difference > 0) == (outcome == "better")
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1 < found.high


def test_without_a_direction_a_difference_is_undecided() -> None:
    """Nobody has said which way it is better; that it is the same needs none."""
    history = [1.0, 1.01, 0.99, 1.0, 1.02]
    assert verdict([0.5], history, None).outcome == "undecided"
    assert verdict([1.0] * 9, history, None).outcome == "same"


def test_a_metric_that_has_diverged_is_worse() -> None:
    """NaN is worse than any history; in the history it counts as no value."""
    history = [1.0, 1.01, 0.99, math.nan, 1.0]
    assert verdict([math.nan], history, "lower").outcome == "worse"
    assert verdict([1.0], history, "lower").baselines == 4
    assert verdict([1.0], [], "lower").outcome == "undecided"
    assert verdict([], history, "lower").outcome == "undecided"


def test_a_trend_is_followed() -> None:
    """What goes on with a trend is no difference, and what breaks it is one."""
    history = [1.0, 1.1, 1.2, 1.31, 1.4, 1.5, 1.6, 1.69]
    on, off = verdict([1.8], history, "higher"), verdict([1.35], history, "higher")
    assert (on.outcome, on.drifts) == ("same", True)
    assert off.outcome == "worse"


def test_many_metrics_raise_no_more_alarms_than_one() -> None:
    """Of thirty equal ones, hardly ever one is called better or worse."""
    rng = random.Random(3)
    alarms = 0
    for _ in range(10):
        names = [f"m{n}" for n in range(30)]
        history = {name: [normal(rng) for _ in range(8)] for name in names}
        new = {name: [normal(rng)] for name in names}
        found = verdicts(new, history, dict.fromkeys(names, "higher"))
        alarms += any(one.outcome in ("better", "worse") for one in found.values())
    assert alarms <= 2
    clear = verdicts(
        {"m": [0.1], "n": [1.0]}, {"m": history["m0"], "n": history["m1"]}, {"m": "higher"}
    )
    assert clear["m"].outcome == "worse"
