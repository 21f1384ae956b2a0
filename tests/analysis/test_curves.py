"""What a curve comes to, which way metrics are better, and which runs are comparable."""

from __future__ import annotations

import math

import pytest

from keisei import AppConfig
from keisei.analysis.comparable import differences, incomparable, is_ignored
from keisei.analysis.curves import Curve, at_end, common_end
from keisei.analysis.directions import by_name, directions


def curve(values: list[float], every: int = 1) -> Curve:
    steps: list[int | None] = [every * place for place in range(len(values))]
    return Curve(steps, [10.0 + place for place in range(len(values))], values)


def test_curves_are_compared_up_to_the_step_that_all_have() -> None:
    """The end of a longer curve does not count, nor how often each was logged."""
    long, short = (
        curve([float(n) for n in range(101)]),
        curve([float(n) for n in range(0, 51, 5)], 5),
    )
    last = common_end([long, short])
    assert last == 50
    assert at_end(long, last) == pytest.approx(47.5)
    assert at_end(short, last) == pytest.approx(47.5)
    assert at_end(long, None) == pytest.approx(95.5)
    assert common_end([long, Curve([None], [0.0], [1.0])]) is None


def test_an_end_that_is_no_number_is_nan() -> None:
    """One NaN amid the end is passed over; a last one is what the curve has come to."""
    assert math.isnan(at_end(curve([1.0, 2.0, math.nan]), 2) or 0.0)
    assert at_end(curve([1.0] * 50 + [math.nan, 3.0]), None) == pytest.approx(1.5)
    assert at_end(Curve(), None) is None


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("train/loss", "lower"),
        ("val_accuracy", "higher"),
        ("evaluation/return", "higher"),
        ("episode_reward_mean", "higher"),
        ("perf/tokens_per_second", "higher"),
        ("fps", "higher"),
        ("kl", None),
        ("lossless/ratio", None),
        ("loss_score", None),
    ],
)
def test_a_name_may_say_which_way_is_better(name: str, better: str | None) -> None:
    """By its words; what says both says nothing."""
    assert by_name(name) == better


def test_what_is_said_goes_before_the_name() -> None:
    """Options first, then the config's `keep_best`, then the name."""
    found = directions(["loss", "kl", "x"], higher=["l*"], lower=["kl"], best={"x": "max"})
    assert found == {"loss": "higher", "kl": "lower", "x": "higher"}


def test_what_makes_runs_incomparable_is_said() -> None:
    """Config values but for names, seeds, directories and trackers; and the kind of machine."""
    one = {"env": {"seed": 1}, "lr": 0.1, "logging": {"run_name": "a"}, "layers": [1, 2]}
    two = {"env": {"seed": 2}, "lr": 0.1, "logging": {"run_name": "b"}, "layers": [1, 2]}
    assert incomparable(one, two) == []
    assert incomparable({**one, "lr": 0.2}, two) == ["lr is 0.2, and was 0.1"]
    assert incomparable({**one, "lr": 0.2}, two, ignore=["l?"]) == []
    assert incomparable(one, {**two, "more": {"x": "y"}}) == ["more.x is None, and was 'y'"]
    assert len(incomparable(one, two, machines=("A100", "H100"))) == 1
    assert incomparable(one, two, machines=("A100", None)) == []


def test_what_differs_is_named_by_its_path() -> None:
    """`1` and `1.0` and `True` are three values, and a list is one."""
    found = differences([{"a": {"b": 1}, "c": [1]}, {"a": {"b": True}, "c": [1]}, {"c": [1]}])
    assert found == {"a.b": [1, True, None]}


def test_no_section_of_keiseis_own_makes_runs_incomparable() -> None:
    """Only those that say what is trained, and how long."""
    whole = AppConfig().model_dump(mode="json")
    counted = {section for section in whole if not is_ignored(f"{section}.any")}
    assert counted == {"env", "training"}
