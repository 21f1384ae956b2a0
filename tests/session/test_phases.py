"""A session's time goes to its phases, on both faces, in tasks and threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from keisei import (
    AsyncSessionManager,
    AsyncSessionMember,
    NotReadyError,
    SessionEndedError,
    SessionManager,
)
from keisei.journal.reader import read_run
from keisei.monitoring.time_used import read_time_used
from tests.conftest import MakeConfig

RANK = """
import sys, time
import keisei

config = keisei.load_config(overrides={"logging": {"log_dir": sys.argv[1]}})
with keisei.SessionManager(config, run_name="r") as session:
    with session.phase(f"work of {session.rank}"):
        time.sleep(0.1 + 0.1 * session.rank)
"""


def seconds_of(session: SessionManager[Any] | AsyncSessionManager[Any]) -> dict[str, float]:
    """Return the time of each phase of a session, which together is all of it."""
    known = session.get_session_summary()["phases"]
    assert sum(known["seconds"].values()) == pytest.approx(known["wall_s"], abs=1e-4)
    return dict(known["seconds"])


class Hours:
    """A clock that a test turns: time passes where it says so, and nowhere else."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Turn the clock on."""
        self.now += seconds


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    """The clock of the phases."""
    clock = Hours()
    monkeypatch.setattr("keisei.session.phases.monotonic", clock)
    return clock


@pytest.mark.requirement("MON-3")
async def test_tasks_share_the_time(make_config: MakeConfig, hours: Hours) -> None:
    """Many tasks in one phase count once, and half of the time where another phase lasts too."""
    async with AsyncSessionManager(make_config(monitoring={"phases": True})) as session:
        entered, leave = 0, anyio.Event()

        async def roll_out() -> None:
            nonlocal entered
            with session.phase("rollout"):
                entered += 1
                await leave.wait()

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(roll_out)
            while entered < 5:
                await anyio.sleep(0)
            hours.pass_by(2.0)
            with session.phase("training"):
                hours.pass_by(6.0)
                with session.phase("evaluation"):
                    hours.pass_by(4.0)
            leave.set()
        hours.pass_by(1.0)
        seconds = seconds_of(session)
    assert seconds == {"rollout": 7.0, "training": 4.0, "evaluation": 2.0}


async def test_a_phase_of_a_child_is_within_its_parents(
    make_config: MakeConfig, hours: Hours
) -> None:
    """A task or a worker thread that is started in a phase suspends it by a phase of its own."""
    async with AsyncSessionManager(make_config(monitoring={"phases": True})) as session:

        async def child() -> None:
            with session.phase("rollout"):
                hours.pass_by(3.0)

        def threaded() -> None:
            with session.phase("scoring"):
                hours.pass_by(5.0)

        with session.phase("evaluation"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
            await anyio.to_thread.run_sync(threaded)
            hours.pass_by(1.0)
        seconds = seconds_of(session)
    assert seconds == {"rollout": 3.0, "scoring": 5.0, "evaluation": 1.0}


async def test_an_error_leaves_the_phase(make_config: MakeConfig, hours: Hours) -> None:
    """So does a cancellation."""
    async with AsyncSessionManager(make_config(monitoring={"phases": True})) as session:
        with pytest.raises(KeyError), session.phase("evaluation"):
            hours.pass_by(1.0)
            raise KeyError("lost")
        with anyio.CancelScope() as scope, session.phase("rollout"):
            hours.pass_by(2.0)
            scope.cancel()
            await anyio.sleep(1)
        hours.pass_by(4.0)
        seconds = seconds_of(session)
    assert seconds == {"evaluation": 1.0, "rollout": 2.0, "training": 4.0}


async def test_a_phase_decorates_functions(make_config: MakeConfig, hours: Hours) -> None:
    """Each call is in the phase, of a coroutine function until it has returned."""
    async with AsyncSessionManager(make_config(monitoring={"phases": True})) as session:

        @session.phase("evaluation")
        async def evaluate() -> str:
            hours.pass_by(1.0)
            await anyio.sleep(0)
            hours.pass_by(1.0)
            return "good"

        @session.phase("scoring")
        def score(depth: int) -> int:
            hours.pass_by(1.0)
            return 1 + score(depth - 1) if depth else 0

        assert await evaluate() == "good"
        assert score(2) == 2
        seconds = seconds_of(session)
        entered = session.get_session_summary()["phases"]["entered"]
    assert seconds == {"evaluation": 2.0, "scoring": 3.0}
    assert entered == {"evaluation": 1, "scoring": 3}


async def test_saves_and_restores_are_checkpoint(make_config: MakeConfig, hours: Hours) -> None:
    """What the program waits for is no training; the program's own phase is suspended by it."""

    def write(directory: Path) -> None:
        hours.pass_by(3.0)
        (directory / "model").write_text("x")

    async with AsyncSessionManager(make_config(monitoring={"phases": True})) as session:
        await session.save_checkpoint(write, 1)
        with session.phase("training"):
            hours.pass_by(1.0)
            await session.save_checkpoint(write, 2)
        seconds = seconds_of(session)
    assert seconds == {"checkpoint": 6.0, "training": 1.0}


def test_the_blocking_face_has_phases(make_config: MakeConfig, hours: Hours) -> None:
    """What it waits for in its loop's thread is within the phase of the caller."""

    def write(directory: Path) -> None:
        hours.pass_by(3.0)
        (directory / "model").write_text("x")

    with SessionManager(make_config(monitoring={"phases": True})) as session:
        with session.phase("evaluation"):
            hours.pass_by(1.0)
            session.save_checkpoint(write, 1)
            session.flush()
        hours.pass_by(2.0)
        seconds = seconds_of(session)
    assert seconds == {"evaluation": 1.0, "checkpoint": 3.0, "training": 2.0}


def test_threads_share_the_time(make_config: MakeConfig) -> None:
    """Phases of threads come and go at will: the shares still sum to the wall time."""
    with SessionManager(make_config(monitoring={"phases": True})) as session:

        def work(name: str) -> None:
            for _ in range(500):
                with session.phase(name), session.phase("inner"):
                    pass

        threads = [threading.Thread(target=work, args=(f"phase {n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds_of(session)
        entered = session.get_session_summary()["phases"]["entered"]
    assert entered == {**{f"phase {n}": 500 for n in range(4)}, "inner": 2000}


def test_two_sessions_have_phases_of_their_own(make_config: MakeConfig, hours: Hours) -> None:
    """A phase of one within that of another suspends nothing."""
    with (
        SessionManager(make_config(monitoring={"phases": True}), run_name="a") as one,
        SessionManager(make_config(monitoring={"phases": True}), run_name="b") as other,
        one.phase("evaluation"),
        other.phase("rollout"),
        one.phase("scoring"),
    ):
        hours.pass_by(2.0)
        assert seconds_of(one) == {"scoring": 2.0}
        assert seconds_of(other) == {"rollout": 2.0}


def test_what_is_stalled_is_no_training(make_config: MakeConfig, hours: Hours) -> None:
    """The watchdog's stalls are taken off what is in no phase."""
    with SessionManager(make_config(monitoring={"phases": True})) as session:
        hours.pass_by(5.0)
        session._phases.add_stall(2.0)
        with session.phase("evaluation"):
            hours.pass_by(5.0)
            session._phases.add_stall(2.0)
        seconds = seconds_of(session)
    assert seconds == {"training": 3.0, "stall": 2.0, "evaluation": 5.0}


def test_a_phase_needs_a_session_that_lives(make_config: MakeConfig) -> None:
    """Too early and too late are errors; a block that outlives the session is none."""
    session = SessionManager(make_config(monitoring={"phases": True}))
    phase = session.phase("evaluation")
    with pytest.raises(NotReadyError), phase:
        pass
    session.setup_directories()
    with phase:
        with pytest.raises(RuntimeError, match="entered already"), phase:
            pass
        session.finalize_session()
    with pytest.raises(SessionEndedError), phase:
        pass


def test_a_short_session_says_nothing_of_its_time(make_config: MakeConfig) -> None:
    """Where it has entered no phase, its journal holds what the program logs alone."""
    with SessionManager(make_config(monitoring={"phases": True})) as session:
        session.log_metrics({"loss": 1.0}, 1)
    assert list(read_run(session.run_artifact_dir).events()) == []


class Wall:
    """The wall clock: it goes on as the other one does, but where somebody sets it."""

    def __init__(self, hours: Hours) -> None:
        self._hours, self.ahead = hours, 1.7e9

    def __call__(self) -> float:
        """Return the time, in seconds since the epoch."""
        return self._hours.now + self.ahead


@pytest.mark.requirement("MON-3")
@pytest.mark.parametrize("set_by", [0.0, 3 * 86400.0, -3600.0])
def test_throughput_and_time_to_go(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, hours: Hours, set_by: float
) -> None:
    """Both are in the summary, from the steps of the rows, whoever sets the clock meanwhile."""
    wall = Wall(hours)
    for room in ("journal.writer", "session.phases"):
        monkeypatch.setattr(f"keisei.{room}.time", wall)
    with SessionManager(
        make_config(training={"total_timesteps": 1000}, monitoring={"phases": True})
    ) as session:
        session.log_metrics({"loss": 1.0}, 100)
        session.flush()
        session.get_session_summary()
        hours.pass_by(10.0)
        wall.ahead += set_by
        session.log_metrics({"loss": 1.0}, 300)
        session.flush()
        known = session.get_session_summary()["phases"]["throughput"]
    assert (known["steps_per_s"], known["recent_steps_per_s"]) == (pytest.approx(20.0),) * 2
    assert (known["last_step"], known["total_steps"]) == (300, 1000)
    assert known["time_to_go_s"] == pytest.approx(35.0)


def test_a_clock_that_was_set_makes_no_time(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of three days ahead, amid others, is no sign of life of then."""
    ahead = 0.0
    monkeypatch.setattr("keisei.journal.writer.time", lambda: time.time() + ahead)
    with SessionManager(make_config(monitoring={"phases": True})) as session:
        with session.phase("evaluation"):
            pass
        ahead = 3 * 86400.0
        session.log_metrics({"loss": 1.0}, 1)
        ahead = 0.0
        session.log_metrics({"loss": 1.0}, 2)
    used = read_time_used(session.run_artifact_dir)
    assert used is not None
    assert used["wall_s"] < 3600.0


@pytest.mark.requirement("MON-3")
async def test_a_member_has_phases_of_its_own(make_config: MakeConfig, hours: Hours) -> None:
    """Its time is its part's, and none of the owner's; what it waits for is a wait."""
    async with AsyncSessionManager(make_config(monitoring={"phases": True})) as session:
        async with AsyncSessionMember(session.handle(), role="rollout-3") as member:
            with member.phase("rollout"):
                hours.pass_by(3.0)
            hours.pass_by(1.0)
            await member.flush()
        owners = seconds_of(session)
    used = await anyio.to_thread.run_sync(read_time_used, session.run_artifact_dir)
    assert owners == {"training": 4.0}
    assert used is not None
    part = used["parts"]["rollout-3"]["seconds"]
    assert part["rollout"] == 3.0
    assert part["training"] == pytest.approx(1.0, abs=0.5)


def test_ranks_have_phases_of_their_own(tmp_path: Path) -> None:
    """The run's time is that of all ranks together, and each rank's is there by itself."""
    environ = {**os.environ, "KEISEI_PROVENANCE": "off", "MASTER_ADDR": "127.0.0.1"}
    environ |= {"MASTER_PORT": "29400", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "phases"}
    command = [sys.executable, "-c", RANK, str(tmp_path)]
    ranks = [
        subprocess.Popen(command, env={**environ, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [rank.wait(60) for rank in ranks] == [0, 0]
    used = read_time_used(str(tmp_path / "r"))
    assert used is not None
    assert used["seconds"]["work of 0"] >= 0.1
    assert used["seconds"]["work of 1"] >= 0.2
    assert list(used["parts"]) == ["rank1"]
    assert "work of 0" not in used["parts"]["rank1"]["seconds"]
