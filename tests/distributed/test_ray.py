"""Actors of a Ray cluster are members of their driver's run; its trainers' workers are ranks."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei.journal.reader import read_run
from tests.support.launched_programs import Ranks, parts_in
from tests.support.launchers import launched, no_ray, no_torch, the_run, until

pytestmark = [pytest.mark.launchers, pytest.mark.xdist_group("ray")]

ACTORS = 3

# A driver, and actors that play until they are told to stop. The first argument after the signs is
# how many of them the driver kills.
DRIVER = """
import os, sys
from pathlib import Path

import anyio
import ray

from keisei import AsyncSessionManager, AsyncSessionMember, load_config

SIGNS, KILLED, RAY = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]


@ray.remote(num_cpus=0)
class Rollout:
    async def play(self, handle, number):
        async with AsyncSessionMember(handle, role=f"rollout-{number}") as member:
            step = 0
            while not (SIGNS / "stop").exists():
                step += 1
                member.log_metrics({"return": number * step}, step=step)
                if step == 5:
                    await member.flush()
                    (SIGNS / f"1.{number}").write_text(str(os.getpid()))
                await anyio.sleep(0.02)
        return step


async def main():
    ray.init(num_cpus=1, include_dashboard=False, _temp_dir=RAY, log_to_driver=False)
    async with AsyncSessionManager(load_config(overrides=sys.argv[4:])) as session:
        handle = session.handle()
        actors = [Rollout.remote() for _ in range(3)]
        playing = [actor.play.remote(handle, n) for n, actor in enumerate(actors)]
        while not all((SIGNS / f"1.{n}").exists() for n in range(3)):
            await anyio.sleep(0.05)
        (SIGNS / "driver").write_text(str(os.getpid()))
        for actor in actors[:KILLED]:
            ray.kill(actor)
        for n, played in enumerate(playing):
            try:
                session.log_metrics({"played": await played}, step=n)
            except ray.exceptions.RayActorError as exc:
                session.log_event("lost", {"rollout": n, "why": type(exc).__name__})


anyio.run(main)
"""

# Two workers of Ray's own trainer, which gives them ranks.
TRAINER = """
import os, sys
from pathlib import Path

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def loop(settings):
    from keisei import SessionManager, load_config

    with SessionManager(load_config()) as session:
        for step in range(20):
            session.log_metrics({"loss": 1 / (step + 1)}, step=step)


ray.init(num_cpus=4, include_dashboard=False, _temp_dir=sys.argv[2], log_to_driver=False)
run = RunConfig(storage_path=sys.argv[1])
workers = ScalingConfig(num_workers=2)
TorchTrainer(loop, train_loop_config={}, scaling_config=workers, run_config=run).fit()
"""


@pytest.fixture
def temporary() -> Iterator[str]:
    """A directory for Ray's own files, with a path that is short enough for its sockets."""
    if missing := no_ray():
        pytest.skip(missing)
    with tempfile.TemporaryDirectory(
        prefix="kray-", dir="/tmp", ignore_cleanup_errors=True
    ) as directory:
        yield directory


def variables(home: Path) -> dict[str, str]:
    """Return what Ray and its workers are told: its token is saved in the home directory."""
    return {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(home)}


@pytest.mark.requirement("RANK-5")
@pytest.mark.parametrize("killed", [0, 1])
def test_actors_are_members_of_their_drivers_run(
    killed: int, tmp_path: Path, temporary: str
) -> None:
    """Each logs to a part of its own; one that Ray kills has died, and the run completes."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path, DRIVER)
    command = ranks.command(str(killed), temporary)
    with launched(command, root, tmp_path, variables(tmp_path)) as running:
        until((ranks.signs / "driver").exists, running.output)
        if killed:
            run = the_run(root)
            until(
                lambda: any(event.name == "lost" for event in read_run(run.directory).events()),
                running.output,
            )
        ranks.stop()
        running.succeed()
    run = the_run(root)
    assert run.state == "completed"
    ends = parts_in(run.directory)
    assert sorted(ends) == [f"rollout-{n}" for n in range(ACTORS)]
    assert [ends[f"rollout-{n}"] for n in range(killed, ACTORS)] == ["completed"] * (
        ACTORS - killed
    )
    assert all(ends[f"rollout-{n}"] == "died" for n in range(killed))
    journal = read_run(run.directory)
    for n in range(ACTORS):
        steps = [row.step for row in journal.rows(part=f"rollout-{n}")]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= 5


@pytest.mark.requirement("RANK-5")
def test_actors_end_with_a_driver_that_is_killed(tmp_path: Path, temporary: str) -> None:
    """Nothing of the run goes on without its owner, and what the actors logged is there."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path, DRIVER)
    with launched(ranks.command("0", temporary), root, tmp_path, variables(tmp_path)) as running:
        until((ranks.signs / "driver").exists, running.output)
        os.kill(running.process.pid, signal.SIGKILL)
        actors = [pid for n in range(ACTORS) if (pid := ranks.pid_of(n))]
        until(
            lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in actors),
            running.output,
        )
    run = the_run(root)
    assert run.state == "died"
    journal = read_run(run.directory)
    assert all(len(list(journal.rows(part=f"rollout-{n}"))) >= 5 for n in range(ACTORS))


@pytest.mark.requirement("RANK-2", "RANK-1")
def test_workers_of_a_trainer_are_ranks_of_one_run(tmp_path: Path, temporary: str) -> None:
    """Ray's trainer says who is which rank; its two workers share one run."""
    if missing := no_torch():
        pytest.skip(missing)
    root, program = tmp_path / "runs", tmp_path / "trainer.py"
    program.write_text(TRAINER)
    command = [sys.executable, str(program), str(tmp_path / "storage"), temporary]
    with launched(command, root, tmp_path, variables(tmp_path)) as running:
        running.succeed()
    run = the_run(root)
    assert run.state == "completed", json.dumps(parts_in(run.directory))
    assert parts_in(run.directory) == {"rank1": "completed"}
    journal = read_run(run.directory)
    assert [len(list(journal.rows(rank=rank))) for rank in range(2)] == [20, 20]
