"""The examples of many processes do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keisei.journal.reader import read_run
from tests.support.launchers import no_module

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
