"""Verdicts: what they say of equal and of different runs, and how often they are wrong."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

import pytest

from keisei.analysis.verdicts import LEAST_BASELINES, Better, verdict, verdicts
from tests.support.storms import repetitions

NOISE = 0.02
Draw = Callable[[random.Random, int], float]


def normal(rng: random.Random, place: int) -> float:
    return 1 + NOISE * rng.gauss(0, 1)


def heavy_tailed(rng: random.Random, place: int) -> float:
    """Student's t with three degrees of freedom, of the same spread."""
    t = rng.gauss(0, 1) / math.sqrt(rng.gammavariate(1.5, 2) / 3)
    return 1 + NOISE * t / math.sqrt(3)


def drifting(rng: random.Random, place: int) -> float:
    """Each run half of the noise better than the one before it."""
    return 1 + NOISE * (rng.gauss(0, 1) + place / 2)


HISTORIES: list[Draw] = [normal, heavy_tailed, drifting]


def outcomes(
    draw: Draw, baselines: int, runs: int, loss: float, times: int, seed: int
) -> Counter[str]:
    """Count the verdicts behind simulated histories, and the alarms of a fixed threshold."""
    rng, found = random.Random(seed), Counter[str]()
    for _ in range(times):
        history = [draw(rng, place) for place in range(baselines)]
        new = [draw(rng, baselines) - loss for _ in range(runs)]
        found[verdict(new, history, "higher").outcome] += 1
        found["fixed"] += sum(new) / runs < 0.95 * sum(history) / baselines
    return found


@pytest.mark.parametrize("draw", HISTORIES, ids=lambda draw: draw.__name__)
def test_equal_runs_raise_no_alarm(draw: Draw) -> None:
    """Hardly ever: one alarm in a hundred is what is allowed, and three are too many."""
    found = outcomes(draw, 10, 1, 0.0, 150, 1)
    assert found["worse"] <= 6


def test_a_loss_is_found_with_several_seeds() -> None:
    """A loss of 5 % at a noise of 2 %, with ten baselines and eight new runs."""
    found = outcomes(normal, 10, 8, 0.05, 100, 2)
    assert found["worse"] >= 95
    assert not found["better"]
    assert not found["same"]


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.5])
def test_three_baselines_are_too_few(loss: float) -> None:
    """The verdict is undecided, whatever the difference is, and says how many it takes."""
    found = verdict([1 - loss], [0.98, 1.0, 1.02], "higher")
    assert found.outcome == "undecided"
    assert str(LEAST_BASELINES) in found.reason


@pytest.mark.storm
def test_ten_thousand_histories() -> None:
    """The table of false alarms, and of losses that are found, beside a fixed threshold's."""
    times = repetitions(2000)
    print(f"\n{times} histories a line; shares in percent")
    print("history, baselines, runs, loss: worse better same undecided | fixed 5 %")
    for draw in HISTORIES:
        for baselines, runs, loss in (
            (10, 1, 0.0),
            (10, 5, 0.0),
            (10, 1, 0.05),
            (10, 5, 0.05),
            (10, 8, 0.05),
            (3, 1, 0.05),
        ):
            found = outcomes(draw, baselines, runs, loss, times, baselines + runs)
            shares = [
                f"{100 * found[name] / times:.1f}"
                for name in ("worse", "better", "same", "undecided", "fixed")
            ]
            print(f"{draw.__name__}, {baselines}, {runs}, {loss}:", *shares[:4], "|", shares[4])
            if not loss:
                assert found["worse"] <= 0.03 * times + 3
            if baselines == 3:
                assert found["undecided"] == times


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
        history = {name: [normal(rng, 0) for _ in range(8)] for name in names}
        new = {name: [normal(rng, 0)] for name in names}
        found = verdicts(new, history, dict.fromkeys(names, "higher"))
        alarms += any(one.outcome in ("better", "worse") for one in found.values())
    assert alarms <= 2
    clear = verdicts(
        {"m": [0.1], "n": [1.0]}, {"m": history["m0"], "n": history["m1"]}, {"m": "higher"}
    )
    assert clear["m"].outcome == "worse"
