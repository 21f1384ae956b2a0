"""The examples of many processes do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.listing import found
from keisei.checkpoints.verify import verify
from keisei.journal.reader import read_run
from tests.support.launchers import no_module, no_torch, torchrun

ROOT = Path(__file__).parents[2]


def run(runs: Path, *command: str) -> str:
    """Run an example to its end, and return what it has printed."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "KEISEI_LOG_DIR": str(runs)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_ranks(out: str, run: Path) -> None:
    """Check that all ranks have completed one run, and that its checkpoint is theirs."""
    assert out.startswith("the mean loss over 4 ranks: 200 steps, ")
    assert out.endswith("ranks: completed\n")
    assert read_run(run).parts() == ["rank1", "rank2", "rank3"]
    with OpenDirectory(str(run / "models")) as models:
        there = found(models)
        assert [stored.manifest.world_size for stored in there.checkpoints] == [4, 4]
        assert verify(models, "checkpoint_200.ckpt") == []


@pytest.mark.requirement("RANK-2", "RANK-7")
def test_four_ranks_by_its_own_spawn(tmp_path: Path) -> None:
    """The processes that it starts are one run, whose checkpoints have four shards."""
    out = run(tmp_path, sys.executable, "-m", "examples.ranks", "--run-name", "ranks")
    check_ranks(out, tmp_path / "ranks")


@pytest.mark.launchers
@pytest.mark.skipif(bool(no_torch()), reason=no_torch() or "")
@pytest.mark.requirement("RANK-2", "RANK-7")
def test_four_ranks_by_torchrun(tmp_path: Path) -> None:
    """The processes of torchrun are one run, whose checkpoints have four shards."""
    launcher = torchrun("--standalone", "--nproc-per-node=4")
    out = run(tmp_path, *launcher, "-m", "examples.ranks", "--run-name", "ranks")
    check_ranks(out, tmp_path / "ranks")


@pytest.mark.launchers
@pytest.mark.skipif(bool(no_module("ray")), reason=no_module("ray") or "")
@pytest.mark.requirement("RANK-5")
def test_actors_of_ray_one_of_which_is_killed(tmp_path: Path) -> None:
    """All rounds of all actors are in one run, those of the killed one's successor, too."""
    out = run(tmp_path, sys.executable, "-m", "examples.ray_actors")
    assert "rollout-2 was killed after" in out
    assert out.count(": 40 rounds") == 4
    assert out.endswith("ray-actors: completed\n")
    journal = read_run(tmp_path / "ray-actors")
    assert list(journal.columns("return", reduce="mean")[0]) == list(range(40))
    (killed,) = [event for event in journal.events() if event.name == "actor/killed"]
    assert isinstance(killed.data, dict)
    assert killed.data["role"] == "rollout-2"
