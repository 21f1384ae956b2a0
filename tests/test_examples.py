"""The examples do what they say, and are ended by Ctrl-C as a user would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import (
    STORE_EVERYTHING_SIZE_GUIDANCE,
    EventAccumulator,
)

from keisei.journal.reader import read_run
from tests.support.wandb_file import find_run_files, wait_for_exit_record

ROOT = Path(__file__).parent.parent


def start(module: str, runs: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start an example in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", f"examples.{module}", *arguments],
        cwd=ROOT,
        env={**os.environ, "KEISEI_LOG_DIR": str(runs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def statuses(runs: Path) -> list[str]:
    """Return how the runs under a root have ended."""
    records = [json.loads(p.read_text(encoding="utf-8")) for p in runs.glob("*/session.json")]
    return sorted(record["status"] for record in records)


def test_the_blocking_example(tmp_path: Path) -> None:
    """It completes, and prints where its run is."""
    out, errors = start("blocking", tmp_path).communicate(timeout=60)
    assert errors == ""
    assert "completed: ended at " in out
    assert statuses(tmp_path) == ["completed"]


def test_twenty_sessions_one_of_which_fails(tmp_path: Path) -> None:
    """The failure is its own session's, the other nineteen complete."""
    out, errors = start("many_sessions", tmp_path).communicate(timeout=60)
    assert errors == ""
    assert out.splitlines()[-2:] == ["19 completed", "1 failed"]
    assert statuses(tmp_path) == ["completed"] * 19 + ["failed"]


@pytest.mark.parametrize(
    "backend",
    ["asyncio", *(pytest.param(it, marks=pytest.mark.storm) for it in ("uvloop", "trio"))],
)
def test_cartpole_learns_and_leaves_everything_behind(tmp_path: Path, backend: str) -> None:
    """A short training already plays better, and its model, logs and rows are there."""
    arguments = ["--backend", backend, "--run-name", "r", "training.total_timesteps=60000"]
    process = start("cartpole", tmp_path, *arguments)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    learned = re.search(
        r"^completed after .* not solved yet, mean return (.*) -> (.*) \(", out, re.M
    )
    assert learned is not None
    assert float(learned[1]) < 50 < float(learned[2])
    assert "heartbeat: " in out
    run = tmp_path / "r"
    assert (run / "models" / "final_model" / "manifest.json").exists()
    assert (run / "models" / "latest" / "manifest.json").exists()
    assert (run / "training.log").read_text(encoding="utf-8").count("epoch") == 8
    evaluations = (run / "evaluation.log").read_text(encoding="utf-8").splitlines()
    assert all("mean_return" in json.loads(line)["values"] for line in evaluations)
    journal = series(run)
    assert len(journal["train/mean_return"]) == len(journal["speed/longest_stall_ms"]) == 8
    assert len(journal["episode/return"]) > 100
    # Before the first epoch, after five, and at the end.
    assert len(journal["evaluation/mean_return"]) == len(evaluations) == 3
    assert shown_by_tensorboard(run) == journal
    (path,) = find_run_files(run)
    file = wait_for_exit_record(path)
    assert file.exit_code == 0
    assert len(file.history) == len(list(read_run(run).rows()))
    assert file.config["training"]["total_timesteps"] == 60000


def test_cartpole_is_solved_and_stops(tmp_path: Path) -> None:
    """Long before its steps are used up; the last screen begins with three lines for a person."""
    process = start("cartpole", tmp_path, "--run-name", "r")
    out, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    first, second, third = out.partition("\n\n")[2].splitlines()[:3]
    assert re.match(r"completed after [\d.]+ s: CartPole is solved, mean return \d", first)
    assert second == f"everything is in {tmp_path / 'r'}"
    assert third.startswith("look at it: ")
    assert third.endswith(f"keisei plot {tmp_path / 'r'}")
    assert not re.search(r"\.\d{4}|[{}]", out)
    assert len(read_run(tmp_path / "r").columns("train/mean_return")) < 40


Series = dict[str, list[tuple[int | None, float]]]


def series(run: Path) -> Series:
    """Return steps and values by metric from the journal, in 32 bits as TensorBoard has them."""
    found: Series = {}
    for row in read_run(run).rows():
        for name, value in row.values.items():
            found.setdefault(name, []).append((row.step, float(np.float32(value))))
    return found


def shown_by_tensorboard(run: Path) -> Series:
    """Return the same from its event files, by TensorBoard's own reader."""
    guidance = STORE_EVERYTHING_SIZE_GUIDANCE
    events = EventAccumulator(str(run / "tensorboard"), guidance).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.scalars.Keys()}


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_ctrl_c_ends_cartpole_as_cancelled(tmp_path: Path, backend: str) -> None:
    """In the middle of the training: exit status 130, no traceback, the run says `cancelled`."""
    process = start("cartpole", tmp_path, "--backend", backend)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2"):
            break
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert re.search(r"^cancelled after .* mean return .* episodes\)$", out, re.MULTILINE)
    assert statuses(tmp_path) == ["cancelled"]


def test_a_wrong_override_is_explained(tmp_path: Path) -> None:
    """A user's typing error is two lines, and no traceback."""
    process = start("cartpole", tmp_path, "training.total_timestep=5")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "did you mean `total_timesteps`?" in errors
    assert "Traceback" not in errors
