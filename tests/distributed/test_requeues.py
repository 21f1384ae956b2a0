"""A job that is preempted and requeued again and again is one run, as if never interrupted.

A stand-in for scontrol takes the requests; a real SLURM is in `test_slurm.py`, where it is there.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keisei.journal.reader import read_run
from tests.support.file_faults import fast_place
from tests.support.requeued_training import advance
from tests.support.storms import repetitions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR2")

REPOSITORY = Path(__file__).parents[2]
FACES = ["asyncio", "trio", "blocking"]
SCONTROL = """#!/bin/sh
# A stand-in: it notes the request, and SLURM's kill of the job follows at once.
[ "$1" = requeue ] || exit 1
echo "$2" >> {root}/requeued
kill -9 $PPID
"""


class Job:
    """A job of a stand-in for SLURM.

    Args:
        root: where it and its run live.
        seed: of the instants at which it is preempted.
        name: the run's name, where the program gives it one.
    """

    def __init__(self, root: Path, seed: int, name: str | None) -> None:
        self.root, self.chance, self.name = root, random.Random(seed), name
        self.starts = 0
        program = root / "bin" / "scontrol"
        program.parent.mkdir()
        program.write_text(SCONTROL.format(root=root))
        program.chmod(0o755)

    def start(self, steps: int) -> subprocess.Popen[bytes]:
        """Start the job, or start it again."""
        (self.root / "ready").unlink(missing_ok=True)
        environ = os.environ | {
            "SLURM_JOB_ID": "4711",
            "STEPS": str(steps),
            "SLURM_RESTART_COUNT": str(self.starts),
            "PATH": f"{self.root}/bin{os.pathsep}{os.environ['PATH']}",
        }
        # Without a name it is the command line that tells the job's programs apart.
        face = FACES[self.starts % len(FACES) if self.name else 0]
        self.starts += 1
        command = [sys.executable, "-m", "tests.support.requeued_training"]
        command += [str(self.root), face, *([self.name] if self.name else [])]
        return subprocess.Popen(command, cwd=REPOSITORY, env=environ)

    def preempt(self, process: subprocess.Popen[bytes]) -> str:
        """Preempt the job at a random instant of its training; return how it was told."""
        give_up = time.monotonic() + 60
        while not (self.root / "ready").exists():
            assert process.poll() is None, "it has ended by itself"
            assert time.monotonic() < give_up
            time.sleep(0.002)
        time.sleep(self.chance.uniform(0, 0.15))
        way = self.chance.choice(["signal", "signal", "signal", "file"])
        if way == "signal":
            process.send_signal(signal.SIGUSR2)
        else:
            (self.root / "preempt").write_text(f"{time.time() + 30}")
        assert process.wait(60) == -signal.SIGKILL, "it has not asked for its requeue"
        return way

    def requeues(self) -> int:
        """Return how often SLURM was asked."""
        path = self.root / "requeued"
        return len(path.read_text().splitlines()) if path.exists() else 0


def runs_in(root: Path) -> list[Path]:
    """Return the runs' directories."""
    return [path for path in (root / "runs").iterdir() if not path.name.startswith(".")]


def preempted(root: Path, times: int, name: str | None = "job") -> None:
    """Preempt and requeue a job so often, let it come to its end, and check what is there."""
    seed = random.randrange(10**6)
    job = Job(root, seed, name)
    lost, ways = 0, {"signal": 0, "file": 0}
    for number in range(1, times + 1):
        process = job.start(10**9)
        ways[job.preempt(process)] += 1
        (run,) = runs_in(root)
        record = json.loads((run / "session.json").read_bytes())
        assert (record["status"], record["attempt"]) == ("preempted", number)
        assert job.requeues() == number
        if (root / "acknowledged").exists():
            acknowledged = int((root / "acknowledged").read_text())
            steps = read_run(run).columns("weight")[0]
            lost += len(set(range(1, acknowledged + 1)) - set(steps))
    last = int(max(step for step in read_run(run).columns("weight")[0] if step is not None)) + 20
    assert job.start(last).wait(120) == 0
    record = json.loads((run / "session.json").read_bytes())
    steps, weights = read_run(run).columns("weight")
    state, wanted = {"step": 0, "weight": 1}, []
    for _ in range(last):
        advance(state)
        wanted.append(float(state["weight"]))
    print(
        f"requeued {times} times (seed {seed}): {ways}, {record['attempt']} attempts, "
        f"{lost} acknowledged rows lost, {last} steps as if never interrupted: {weights == wanted}"
    )
    assert lost == 0
    assert (record["status"], record["attempt"]) == ("completed", times + 1)
    assert runs_in(root) == [run]
    assert run.name == name or name is None
    assert record["started_by"] == ("requeue" if name is None else "resume")
    assert list(steps) == list(range(1, last + 1))
    assert list(weights) == wanted


@pytest.mark.requirement("RANK-6")
def test_a_requeued_job_goes_on_as_one_run(tmp_path: Path) -> None:
    """Each start is the run's next attempt, and no step is lost or done twice in its series."""
    with fast_place(tmp_path) as place:
        preempted(place, 4)


@pytest.mark.requirement("RANK-6")
def test_a_requeued_job_needs_no_name(tmp_path: Path) -> None:
    """The run of a program without a run name goes on, too: the job's id leads to it."""
    with fast_place(tmp_path) as place:
        preempted(place, 2, name=None)


@pytest.mark.storm
def test_a_hundred_requeues_in_a_row(tmp_path: Path) -> None:
    """The same, 100 times."""
    with fast_place(tmp_path) as place:
        preempted(place, repetitions(100))
