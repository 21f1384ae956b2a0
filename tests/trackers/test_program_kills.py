"""A program is killed while it logs, or a host process is: each tracker has each row, once."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from keisei.testing.wandb_server import WandbServer
from tests.support.killed_programs import Program, Surroundings
from tests.support.storms import repetitions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")

TRACKERS = ["tensorboard", "mlflow", "trackio", "wandb"]
TIMEOUT = 60.0  # far above what it takes


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest) -> str:
    """The tracker of the programs."""
    name: str = request.param
    return name


@pytest.fixture
def around(tracker: str, tmp_path: Path) -> Iterator[Surroundings]:
    """What the programs share: a directory, and W&B's server where they need it."""
    if tracker != "wandb":
        yield Surroundings(tmp_path)
        return
    with WandbServer() as server:
        yield Surroundings(tmp_path, server)


def kill_two(tracker: str, around: Surroundings) -> list[float]:
    """Kill two programs that log: one while its tracker starts, one that has waited for that.

    Returns:
        How long the tracker's process has outlived each, in seconds.
    """
    programs = [Program(tracker, around, {"wait": wait}) for wait in (False, True)]
    took = []
    for program in programs:
        program.wait_until_logging()
        program.wait_for_host(TIMEOUT)
        time.sleep(random.uniform(0.05, 1.0))
        program.kill()
        took.append(program.wait_until_gone(TIMEOUT))
    for program in programs:
        logged = program.logged()
        assert logged == [(step, step * 0.5) for step in range(len(logged))]
        assert program.tracked() == (logged, "failed")
    return took


def test_a_killed_program_is_tracked_to_its_last_row(tracker: str, around: Surroundings) -> None:
    """What the journal has is at the tracker, once, and the end is `failed`; no process is left."""
    kill_two(tracker, around)


def test_a_killed_host_process_is_replaced(tracker: str, around: Surroundings) -> None:
    """The next one goes on from the cursor: each row is there once, and the end is `completed`.

    What W&B's SDK had written to its own files when it was killed is uploaded by `keisei sync`.
    """
    program = Program(tracker, around)
    program.wait_until_logging()
    for _ in range(2):
        time.sleep(random.uniform(0.2, 1.0))
        program.kill_host()
    time.sleep(0.3)
    program.end()
    program.wait_until_gone(TIMEOUT)
    if tracker == "wandb":
        program.sync()
    assert program.tracked() == (program.logged(), "completed")


@pytest.mark.storm
def test_fifty_killed_programs(
    tracker: str, around: Surroundings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of each tracker's, at random instants; how long their processes went on is printed."""
    took = [kill_two(tracker, around) for _ in range(repetitions(25))]
    with capsys.disabled():
        print(f"\n{tracker}: {2 * len(took)} kills; the host process outlives the program by")
        print("  (median, longest)")
        for when, times in zip(("starting", "live"), zip(*took, strict=True), strict=True):
            print(f"  {when}: {median(times):.2f} s, {max(times):.2f} s")
