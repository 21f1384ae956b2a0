"""The kit of adapters passes what tells a run the truth, and finds what does not."""

from __future__ import annotations

import pytest

from keisei.integrations.conformance import CHECKS
from keisei.integrations.planned import Train
from keisei.testing import check_adapter
from tests.support.trainers import plain

# A plain loop needs no framework, and so no extra.
NO_EXTRA = {CHECKS[0][0]: "it needs no framework"}


def check(train: Train) -> list[str]:
    return check_adapter(
        train, module="keisei.integrations.attached", framework="", extra="", without=NO_EXTRA
    )


def test_a_plain_loop_passes_the_kit() -> None:
    """Twelve checks are said, the one that was left out with its reason."""
    said = check(plain.train)
    assert len(said) == len(CHECKS) == 12
    assert said[0].endswith("(left out: it needs no framework)")


@pytest.mark.parametrize(
    ("train", "found"),
    [
        (plain.train_and_forget, "'what is no number, or not finite, stops nothing' does not hold"),
        (plain.train_and_hide, "'a crash fails the run, with its error' does not hold: the run is"),
    ],
)
def test_a_fault_is_found(train: Train, found: str) -> None:
    """The message names the check, and what was seen in its place."""
    with pytest.raises(AssertionError) as caught:
        check(train)
    assert found in str(caught.value)


def test_a_check_that_does_not_exist_cannot_be_left_out() -> None:
    """A sentence that has changed is no silent hole."""
    with pytest.raises(ValueError, match="no such check"):
        check_adapter(plain.train, module="", framework="", extra="", without={"all": "why"})
