"""Ranks that are processes, started at once, and killed: one run, and the truth about its end."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from keisei._io.directories import OpenDirectory
from keisei.run.find import owner_state
from keisei.run.session_file import SessionRecord
from tests.support.storms import repetitions


def started(root: Path, count: int, method: str, act: str = "") -> dict[str, list[object]]:
    """Start ranks at once, wait for them, and return what each has met."""
    command = [sys.executable, "-m", "tests.support.rank_processes", str(root), str(count), method]
    done = subprocess.run(
        [*command, act], capture_output=True, text=True, timeout=120, check=True, cwd=REPOSITORY
    )
    met: dict[str, list[object]] = json.loads(done.stdout)
    return met


REPOSITORY = Path(__file__).parents[2]


def runs(root: Path) -> list[Path]:
    """Return the directories of all runs."""
    return [path for path in root.glob("*") if not path.name.startswith(".")]


def agree(root: Path, count: int, method: str) -> float:
    """Start ranks, check that they come to one run, and return how long they took to agree."""
    met = started(root, count, method)
    assert len(met) == count
    assert len({(known[0], known[1]) for known in met.values()}) == 1
    (run,) = runs(root)
    record = SessionRecord.parsed((run / "session.json").read_bytes())
    assert record is not None
    assert record.status == "completed"
    assert record.launch is not None
    assert record.launch.world_size == count
    return max(float(str(known[2])) for known in met.values())


@pytest.mark.requirement("RANK-2")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_that_start_at_once_come_to_one_run(tmp_path: Path, method: str) -> None:
    """Ranks that `multiprocessing` starts have one name and one directory, without any hint."""
    agree(tmp_path / "runs", 4, method)


def killed(root: Path, rank: int, after: float) -> None:
    """Kill a rank, and check that the others end, and that the run's end is the truth."""
    started(root, 3, "fork", f"kill:{rank}:{after}")
    for run in runs(root):
        text = (run / "session.json").read_bytes() if (run / "session.json").exists() else b""
        record = SessionRecord.parsed(text)
        if rank == 0:
            if record is not None:
                with OpenDirectory(str(run)) as directory:
                    assert owner_state(record.owner, directory) == "died"
                assert record.status == "running"
            continue
        assert record is not None
        assert record.status == "failed"
        assert record.failure is not None
        assert record.failure.message.startswith(f"rank {rank} ")
    assert len(runs(root)) == 1 or (rank == 0 and not runs(root))


@pytest.mark.requirement("RANK-4")
@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_rank_ends_the_others(tmp_path: Path, rank: int) -> None:
    """A rank that was killed while it trained is how the run ends; the others end by themselves."""
    killed(tmp_path / "runs", rank, 0.7)


@pytest.mark.storm
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_come_to_one_run_again_and_again(tmp_path: Path, method: str) -> None:
    """Thirty-two ranks that start at once agree each time, without a directory too many."""
    times = [
        agree(tmp_path / str(number), 32, method)
        for number in range(repetitions(100 if method == "fork" else 10))
    ]
    median = sorted(times)[len(times) // 2]
    print(f"{method}: agreed after {median:.3f} s, at most {max(times):.3f}")


@pytest.mark.storm
def test_a_rank_is_killed_at_any_instant(tmp_path: Path) -> None:
    """Whenever a rank is killed, the others end, and the session file has no other end."""
    for number in range(repetitions(500)):
        chance = random.Random(number)
        killed(tmp_path / str(number), chance.randrange(3), chance.uniform(0.0, 0.4))
