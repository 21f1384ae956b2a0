"""Runs in a real SLURM: its tasks, its requeues, its cancellations and the end of a job's time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from keisei.journal.reader import read_run
from tests.support.launched_programs import Ranks, parts_in
from tests.support.launchers import the_run, until
from tests.support.slurm import Slurm

pytestmark = [pytest.mark.launchers, pytest.mark.xdist_group("slurm")]

SIZE = 4
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

# A learner with checkpoints: each start goes on where the last one has saved, until the step that
# it is told, the same for all ranks.
LEARNER = """
import os, sys, time
from pathlib import Path
from keisei import SessionManager, load_config

signs, rank = Path(sys.argv[1]), os.environ["SLURM_PROCID"]
stop = signs / "stop"
with SessionManager(load_config(overrides=sys.argv[2:]), run_name="learner") as session:
    restored = session.restore_checkpoint()
    state = {"step": 0} if restored is None else restored.state
    session.setup_auto_checkpointing(interval=200, state=lambda: dict(state))
    attempt = session.get_session_summary()["attempt"]
    while not (stop.exists() and state["step"] >= int(stop.read_text())):
        state["step"] += 1
        session.log_metrics({"square": state["step"] ** 2}, step=state["step"])
        session.checkpoint_if_due(state["step"])
        if state["step"] % 10 == 0:
            session.flush()
            (signs / f"{attempt}.{rank}").write_text(str(os.getpid()))
        time.sleep(0.01)
"""


def script(ranks: Ranks, root: Path, *overrides: str, srun: str = "srun") -> str:
    """Return a batch script that starts the program, as a user writes it."""
    command = " ".join([srun, *ranks.command(*overrides)])
    return f"#!/bin/bash\nexport KEISEI_LOG_DIR={root}\n{command}\n"


@pytest.mark.requirement("RANK-2", "RANK-3")
def test_tasks_on_two_nodes_are_one_run(slurm: Slurm, tmp_path: Path) -> None:
    """Four tasks, which no one has told a name, share a run that ends as completed."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path)
    job = slurm.submit(script(ranks, root), "--nodes=2", "--ntasks-per-node=2")
    ranks.wait_for(SIZE, lambda: slurm.output(job))
    ranks.stop()
    assert slurm.wait_for(job, *OVER) == "COMPLETED", slurm.output(job)
    run = the_run(root)
    assert run.state == "completed"
    assert parts_in(run.directory) == {f"rank{rank}": "completed" for rank in range(1, SIZE)}
    journal = read_run(run.directory)
    assert all(len(list(journal.rows(rank=rank))) >= 5 for rank in range(SIZE))


@pytest.mark.requirement("RANK-4")
def test_a_killed_task_is_known_to_the_others(slurm: Slurm, tmp_path: Path) -> None:
    """srun waits for the other tasks: they learn within a minute that one has gone, and end."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path)
    srun = "srun --kill-on-bad-exit=0 --wait=0"
    job = slurm.submit(script(ranks, root, srun=srun), "--ntasks=4")
    ranks.wait_for(SIZE, lambda: slurm.output(job))
    ranks.kill(2)
    assert slurm.wait_for(job, *OVER, timeout=60.0) == "FAILED", slurm.output(job)
    assert the_run(root).state == "failed", slurm.output(job)


@pytest.mark.requirement("RANK-2")
def test_a_requeued_job_goes_on_with_its_run(slurm: Slurm, tmp_path: Path) -> None:
    """What `scontrol requeue` starts again is the next attempt of the same run, on all ranks."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path)
    job = slurm.submit(script(ranks, root), "--ntasks=4", "--requeue")
    ranks.wait_for(SIZE, lambda: slurm.output(job))
    slurm.run("scontrol", "requeue", job)
    ranks.wait_for(SIZE, lambda: slurm.output(job), attempt=2)
    ranks.stop()
    assert slurm.wait_for(job, *OVER) == "COMPLETED", slurm.output(job)
    run = the_run(root)
    assert run.record is not None
    assert (run.state, run.record.attempt) == ("completed", 2)


@pytest.mark.requirement("RANK-6", "RANK-7")
@pytest.mark.parametrize(("size", "requeues"), [(1, 2), (3, 5)])
def test_preemptions_requeue_the_job_and_lose_nothing(
    size: int, requeues: int, slurm: Slurm, tmp_path: Path
) -> None:
    """Each saves, ends as preempted and asks SLURM to requeue; the job goes on from there, and the
    series is that of a run that was never interrupted."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path, LEARNER)
    text = script(ranks, root, "signals.handle=true", "distributed.requeue=true")
    job = slurm.submit(text, f"--ntasks={size}", "--requeue")
    for attempt in range(1, requeues + 1):
        ranks.wait_for(size, lambda: slurm.output(job), attempt=attempt)
        slurm.run("scancel", "--signal=USR2", job)
    ranks.wait_for(size, lambda: slurm.output(job), attempt=requeues + 1)
    ranks.stop((read_run(the_run(root).directory).last_step() or 0) + 300)
    assert slurm.wait_for(job, *OVER) == "COMPLETED", slurm.output(job)
    assert slurm.field(job, "Restarts") == str(requeues)
    run = the_run(root)
    assert run.record is not None
    assert (run.state, run.record.attempt) == ("completed", requeues + 1)
    for rank in range(size):
        rows = list(read_run(run.directory).rows(rank=rank))
        assert [row.step for row in rows] == list(range(1, len(rows) + 1)), rank
        assert all(row.values["square"] == row.step**2 for row in rows if row.step), rank


@pytest.mark.requirement("RANK-6")
def test_the_end_of_a_jobs_time_is_a_preemption(slurm: Slurm, tmp_path: Path) -> None:
    """A job of one minute is told in time, and ends as preempted before SLURM would end it."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path, LEARNER)
    text = script(ranks, root, "signals.handle=true", "signals.grace=50")
    job = slurm.submit(text, "--ntasks=1", "--time=1")
    assert slurm.wait_for(job, *OVER, timeout=90.0) != "TIMEOUT", slurm.output(job)
    assert the_run(root).state == "preempted", slurm.output(job)


def test_a_cancelled_job_is_a_cancelled_run(slurm: Slurm, tmp_path: Path) -> None:
    """`scancel` ends all ranks with SIGTERM, and the run as cancelled."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path)
    job = slurm.submit(script(ranks, root, "signals.handle=true"), "--ntasks=4")
    ranks.wait_for(SIZE, lambda: slurm.output(job))
    slurm.run("scancel", job)
    assert slurm.wait_for(job, *OVER) == "CANCELLED"
    until(lambda: the_run(root).state != "running", lambda: slurm.output(job))
    assert the_run(root).state == "cancelled", slurm.output(job)


@pytest.mark.requirement("RANK-8")
def test_keisei_cancels_a_job_that_runs(slurm: Slurm, tmp_path: Path) -> None:
    """`keisei cancel` from a terminal ends the tasks of the job, and the run as cancelled."""
    root, ranks = tmp_path / "runs", Ranks(tmp_path)
    job = slurm.submit(script(ranks, root), "--ntasks=4")
    ranks.wait_for(SIZE, lambda: slurm.output(job))
    name = the_run(root).name
    cancel = [sys.executable, "-m", "keisei", "cancel", name, "--root", str(root), "--wait", "60"]
    slurm.run(*cancel)
    slurm.wait_for(job, *OVER)
    assert the_run(root).state == "cancelled", slurm.output(job)
    assert os.path.isdir(root / name)
