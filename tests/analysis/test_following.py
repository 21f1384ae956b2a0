"""Which verdicts are new while a run goes on."""

from __future__ import annotations

from keisei.analysis.following import Changes
from keisei.analysis.verdicts import Outcome, Verdict


def look(changes: Changes, outcome: Outcome) -> list[str]:
    return [one.outcome for one in changes.of({"m": Verdict(outcome, "")}).values()]


def test_a_verdict_is_new_once_two_looks_in_a_row_have_come_to_it() -> None:
    """It is said once; one look beside it says nothing, and what is taken back is said, too."""
    changes = Changes()
    said = [
        look(changes, outcome)
        for outcome in (
            *("undecided", "undecided", "worse", "same", "worse", "worse", "worse"),
            *("same", "worse", "undecided", "undecided", "worse"),
        )
    ]
    assert said == [[], [], [], [], [], ["worse"], [], [], [], [], ["undecided"], []]


def test_a_metric_that_comes_later_is_told_like_any_other() -> None:
    """And one that goes is forgotten."""
    changes = Changes()
    worse = Verdict("worse", "")
    assert not changes.of({"a": worse})
    assert changes.of({"a": worse, "b": worse}) == {"a": worse}
    assert changes.of({"b": worse}) == {"b": worse}
