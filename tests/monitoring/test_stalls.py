"""What has held a loop, by what was seen of it."""

from __future__ import annotations

import json
import selectors
import sysconfig
from asyncio import base_events, events, runners
from pathlib import Path

import pytest

from keisei.journal import writer
from keisei.monitoring import watchdog
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
        (  # another thread sleeps with the GIL: both ask for it
            Seen(0.3, waiting=0.0, late=0.29, queueing=0.28, watchdog_queueing=0.28),
            "another thread with the GIL",
        ),
        (  # the loop's thread sleeps with it
            Seen(0.3, waiting=0.0, late=0.29, queueing=0.0, watchdog_queueing=0.28),
            "own code",
        ),
        (Seen(0.3, waiting=0.0, late=0.29, queueing=0.0, watchdog_queueing=0.0), "suspended"),
        (
            Seen(0.3, waiting=0.0, late=0.29, watchdog_waiting=0.28),
            "own code",
        ),  # who looked had none
        (  # who looked was kept from a loop that had nothing to do: it was not its own code
            Seen(0.3, waiting=0.0, late=0.29, queueing=0.0, watchdog_queueing=0.28, idle=True),
            "another thread with the GIL",
        ),
        (
            Seen(0.3, waiting=0.0, late=0.29, watchdog_waiting=0.28, idle=True),
            "no CPU",
        ),
        (
            Seen(0.3, late=0.29, queueing=0.0, watchdog_queueing=0.0, idle=True),
            "suspended",
        ),
        (Seen(0.3, process=0.28, late=0.29, idle=True), "another thread with the GIL"),
        (  # many short sleeps without it
            Seen(0.3, waiting=0.0, late=0.0, queueing=0.3, watchdog_queueing=0.3),
            "own code",
        ),
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


def test_keiseis_own_frames_are_blamed() -> None:
    """Where keisei holds the loop its own function is said, and not the one that has called it."""
    standard = Frame(json.__file__, 1, "dumps")
    ours, caller = Frame(writer.__file__, 3, "Journal.log"), Frame("/home/me/train.py", 7, "step")
    assert blamed([standard, ours, caller]) == ours
    assert blamed([caller, ours]) == caller  # a callback of the program's


@pytest.mark.parametrize(
    "idle",
    [
        [
            Frame(selectors.__file__, 468, "EpollSelector.select"),
            Frame(base_events.__file__, 1, "BaseEventLoop._run_once"),
        ],
        [Frame("/x/site-packages/trio/_core/_io_epoll.py", 9, "EpollIOManager.get_events")],
        [Frame(runners.__file__, 118, "Runner.run")],  # what uvloop shows of itself
        [Frame(watchdog.__file__, 1, "Watchdog.beat"), Frame(watchdog.__file__, 1, "_answer")],
    ],
    ids=["asyncio", "trio", "uvloop", "beat"],
)
def test_a_loop_that_runs_nothing_blames_nobody(idle: list[Frame]) -> None:
    """What has started the loop stands there all the time, and holds nobody up."""
    main = Frame("/home/me/train.py", 90, "<module>")
    runner = Frame(runners.__file__, 190, "run")
    assert blamed([*idle, runner, main]) is None
    step = Frame("/home/me/train.py", 7, "step")
    assert blamed([step, Frame(events.__file__, 80, "Handle._run"), runner, main]) == step
