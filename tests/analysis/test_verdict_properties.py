"""What holds of every verdict, whatever the values are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from keisei.analysis.noise import LEAST_BASELINES
from keisei.analysis.verdicts import Verdict, verdict, verdicts

ANY = st.floats() | st.sampled_from([1.7e308, -1.7e308, 1e149, 1e-300, 5e-324])
USUAL = st.floats(-1e6, 1e6)
HISTORY = st.lists(USUAL, min_size=LEAST_BASELINES, max_size=12)
RUNS = st.lists(USUAL, min_size=1, max_size=4)


@given(st.lists(ANY, max_size=6), st.lists(ANY, max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_values_have_a_verdict(new: list[float], history: list[float]) -> None:
    """Also huge, tiny, equal and negative ones, and those that are no numbers."""
    found = verdict(new, history, "lower")
    known = [value for value in history if abs(value) < 1e150]
    assert found.baselines == len(known)
    if new and known and not all(abs(value) < 1e150 for value in new):
        assert found.outcome == "worse"
    elif len(known) < LEAST_BASELINES or not new:
        assert found.outcome == "undecided"
    assert found.p is None or 0 <= found.p <= 1


@given(RUNS, HISTORY)
@settings(max_examples=100, deadline=None)
def test_the_direction_mirrors_the_verdict(new: list[float], history: list[float]) -> None:
    """What is better of a return is worse of a loss, and of the negative values, too."""
    mirrored = {"better": "worse", "worse": "better"}
    rises, falls = verdict(new, history, "higher"), verdict(new, history, "lower")
    assert falls.outcome == mirrored.get(rises.outcome, rises.outcome)
    if min(*new, *history) <= 0 <= max(*new, *history):  # no logarithms on either side
        negative = verdict([-v for v in new], [-v for v in history], "lower")
        assert negative.outcome == rises.outcome


@given(RUNS, HISTORY)
@settings(max_examples=100, deadline=None)
def test_an_alarm_is_outside_the_noise_band_and_no_other_value_is(
    new: list[float], history: list[float]
) -> None:
    """The band that is shown is the one that decides."""
    found = verdict(new, history, "higher")
    if found.low is None or found.high is None or found.value is None:
        return
    edge = 1e-6 * max(map(abs, (found.low, found.high, found.value)))
    if found.outcome in ("better", "worse"):
        assert found.value <= found.low + edge or found.value >= found.high - edge
    elif found.outcome == "undecided":
        assert found.low - edge <= found.value <= found.high + edge


@given(st.dictionaries(st.sampled_from("abcdef"), RUNS), HISTORY)
@settings(max_examples=50, deadline=None)
def test_more_metrics_make_no_verdict_bolder(
    new: dict[str, list[float]], history: list[float]
) -> None:
    """The correction turns alarms into `undecided`, and changes nothing else."""
    found = verdicts(new, dict.fromkeys(new, history), dict.fromkeys(new, "higher"))
    for key, one in found.items():
        alone: Verdict = verdict(new[key], history, "higher")
        assert one.outcome in (alone.outcome, "undecided")
