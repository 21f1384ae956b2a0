"""The conformance kit finds what is wrong with a tracker, and says what to look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from keisei.testing import check_tracker
from tests.support.line_tracker import series_of
from tests.support.wrong_trackers import (
    Buffering,
    OneCurrentRun,
    OnlyFinite,
    StartsAnew,
    WithoutId,
    WrongTracker,
    close_all,
)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_all()


@pytest.mark.parametrize(
    ("wrong", "found", "advice"),
    [
        (OneCurrentRun, "'8 runs at once in one process do not mix'", "keep a run's state in"),
        (Buffering, "'what it was sent before a kill is there, once'", "survive SIGKILL"),
        (OnlyFinite, "ValueError: out of range", "leave it out"),
        (StartsAnew, "was sent 18; number 0 is (step, value) (8, 1.0)", "resumes the run"),
        (WithoutId, "has no run_id: a text", ""),
    ],
)
def test_each_fault_is_found(wrong: type[WrongTracker], found: str, advice: str) -> None:
    """The message names the check, the first difference or the error, and the way out."""
    with pytest.raises(AssertionError) as caught:
        check_tracker(wrong, series_of)
    assert found in str(caught.value)
    assert advice in str(caught.value)
