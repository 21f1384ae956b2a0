"""A program that is killed and started again, against one that was never interrupted.

Every tracker that keeps a run on this machine, the journal and the evaluation log have the same
series of both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keisei.journal.reader import read_run
from tests.support.wandb_client import client_environ

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

PROGRAM = """
import os, signal, sys, time
from keisei import SessionManager, load_config
killed_at = int(sys.argv[1])
config = load_config(overrides=[
    "tracking.trackers={tensorboard: {}, mlflow: {}, trackio: {}}", "tracking.linger=20",
    "tracking.finish_timeout=20"])
with SessionManager(config, run_name="r") as session:
    state = {"step": 0}
    restored = session.restore_checkpoint()
    if restored is not None:
        state = dict(restored.state)
    for step in range(state["step"], 40):
        if step == killed_at:
            session.flush()
            while any(one["behind"] for one in session.get_session_summary()["trackers"].values()):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        session.log_metrics({"loss": float(step)}, step=step)
        if step % 4 == 3:
            session.log_metrics({"epoch/loss": float(step)}, step=step // 4)
        if step % 5 == 4:
            session.log_evaluation({"score": step}, step=0)
        if step % 8 == 7:
            state["step"] = step + 1
            session.save_checkpoint(state, step)
"""


@pytest.fixture
def live(tmp_path: Path) -> Callable[[str, int], Path]:
    """Run the program once more, and return the run's directory."""

    def live(home: str, killed_at: int) -> Path:
        where = tmp_path / home
        where.mkdir(exist_ok=True)
        environ = client_environ(where, {}) | {
            "KEISEI_LOG_DIR": "runs",
            "MLFLOW_TRACKING_URI": f"sqlite:///{where / 'mlflow.db'}",
            "TRACKIO_DIR": str(where / "trackio"),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(killed_at)],
            env=environ,
            cwd=where,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == (0 if killed_at < 0 else -9), done.stderr
        return where / "runs" / "r"

    return live


Series = dict[str, list[tuple[Any, float]]]


def sorted_series(points: Any) -> Series:
    """Return steps and values by metric."""
    found: Series = {}
    for key, step, value in points:
        found.setdefault(key, []).append((step, float(value)))
    return found


def of_tensorboard(run: Path) -> Series:
    """Read it with TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    tags = found.Tags()["scalars"]
    return sorted_series((tag, e.step, e.value) for tag in tags for e in found.Scalars(tag))


def of_mlflow(run: Path) -> Series:
    """Read it with MLflow's own client; the session has one run."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{run.parent.parent / 'mlflow.db'}")
    (native,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert (native.info.run_name, native.info.status) == ("r", "FINISHED")
    return sorted_series(
        (key, point.step, point.value)
        for key in native.data.metrics
        for point in client.get_metric_history(native.info.run_id, key)
    )


def of_trackio(run: Path) -> Series:
    """Read its table of rows."""
    import sqlite3

    (path,) = (run.parent.parent / "trackio").glob("keisei.db")
    with sqlite3.connect(path) as database:
        rows = list(database.execute("SELECT step, metrics FROM metrics ORDER BY id"))
    return sorted_series(
        (key, step, value) for step, text in rows for key, value in json.loads(text).items()
    )


def of_journal(run: Path) -> Series:
    """Read it with the reader."""
    rows = read_run(run).rows()
    return sorted_series((key, row.step, v) for row in rows for key, v in row.values.items())


@pytest.mark.requirement("CKPT-7")
def test_a_program_that_was_killed_has_the_series_of_one_that_was_not(
    live: Callable[[str, int], Path],
) -> None:
    """It restores its checkpoint, and nobody shows what it had logged after that."""
    for name in ("tensorboard", "mlflow", "trackio", "numpy"):
        pytest.importorskip(name)
    whole = live("whole", -1)
    for killed_at in (22, -1):
        resumed = live("resumed", killed_at)
    for read in (of_journal, of_tensorboard, of_mlflow, of_trackio):
        assert read(resumed) == read(whole), read.__name__
    lines = [
        [json.loads(line)["values"] for line in (run / "evaluation.log").read_text().splitlines()]
        for run in (whole, resumed)
    ]
    assert lines[0] == lines[1] == [{"score": step} for step in range(4, 40, 5)]
