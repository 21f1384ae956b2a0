"""What has held a loop, by what was seen of it."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest

from keisei.monitoring.stalls import Cause, Frame, Seen, blamed, cause_of, is_library


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (Seen(0.3, computing=0.29, process=0.3), "own code"),
        (Seen(0.3, computing=0.0, process=0.0, waiting=0.0), "own code"),  # a call that blocks
        (Seen(0.3, computing=0.29, process=0.29, late=0.28), "own code"),  # in C, with the GIL
        (Seen(0.3, collecting=0.25, computing=0.29, process=0.3, late=0.28), "garbage collection"),
        (
            Seen(0.3, computing=0.02, waiting=0.0, process=0.3, late=0.28),
            "another thread with the GIL",
        ),
        (
            Seen(0.3, computing=0.1, waiting=0.0, process=0.3, late=0.1),
            "another thread with the GIL",
        ),
        (Seen(0.3, computing=0.02, waiting=0.27, process=0.02, late=0.1), "no CPU"),
        (Seen(0.3, computing=0.02, waiting=0.27, process=0.02, late=0.29), "no CPU"),
        (Seen(9.0, computing=0.02, waiting=0.1, process=0.02, late=8.9), "suspended"),
        (Seen(9.0, computing=0.02, waiting=0.1, process=0.02, late=0.1, asleep=8.8), "suspended"),
        (Seen(0.3, computing=0.0, process=0.3, late=0.0), "own code"),  # blocked, others compute
        (Seen(0.3, computing=0.1, waiting=None, process=0.1, late=0.25), "no CPU"),
    ],
    ids=str,
)
def test_the_cause_is_what_took_most_of_it(seen: Seen, cause: Cause) -> None:
    """By the clocks that went on while the loop did not answer."""
    assert cause_of(seen) == cause


def test_the_programs_own_code_is_blamed() -> None:
    """The innermost frame of the program counts; where there is none, the innermost of all."""
    inner = Frame(json.__file__, 1, "loads")
    own, outer = Frame("/home/me/train.py", 7, "step"), Frame("/home/me/train.py", 90, "main")
    package = Frame(str(Path(sysconfig.get_path("purelib"), "anyio", "_core.py")), 3, "run")
    assert blamed([inner, package, own, outer]) == own
    assert blamed([inner, package]) == inner
    assert blamed([]) is None
    assert is_library("<frozen runpy>")
