"""Relative places of trackers are resolved once, where the program stood when it asked for them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from keisei import SessionManager
from keisei.trackers.places import absolute_environ, absolute_options, absolute_uri
from tests.conftest import MakeConfig

PROGRAM = """
import os, sys, time
import keisei

config = keisei.load_config(overrides={
    "logging.log_dir": "runs",
    "tracking": {
        "wait": sys.argv[1] == "wait",
        "linger": 0,
        "trackers": {"tensorboard": {"log_dir": "boards"}, "mlflow": {}, "trackio": {}},
    },
})
with keisei.SessionManager(config, run_name="r") as session:
    os.makedirs("elsewhere")
    os.chdir("elsewhere")
    session.log_metrics({"x": 1.0}, step=0)
    session.flush()
    if sys.argv[1] == "wait":
        for step in range(1, 1000):
            session.log_metrics({"x": 1.0}, step=step)
        session.flush()
        os._exit(9)
    while any(known["behind"] for known in session.get_session_summary()["trackers"].values()):
        time.sleep(0.05)
"""


def places(above: Path) -> dict[str, int]:
    """Return where there are event files and databases with rows, and how many rows those have."""
    found = {}
    for path in above.rglob("*.tfevents.*"):
        found[path.parent.relative_to(above).as_posix()] = 0
    for path in [*above.rglob("mlflow.db"), *above.rglob("keisei*.db")]:
        with sqlite3.connect(path) as database:
            (rows,) = database.execute("SELECT count(*) FROM metrics").fetchone()
        found[path.relative_to(above).as_posix()] = rows
    return found


@pytest.mark.requirement("HOST-2", "HOST-3")
@pytest.mark.parametrize("how", ["wait", "go on"])
def test_runs_are_where_the_program_stood_when_it_asked_for_the_trackers(
    tmp_path: Path, how: str
) -> None:
    """Whatever directory it changes to meanwhile, and wherever `keisei sync` is called later.

    The sync knows of no environment variable that the program had.
    """
    begins, other = tmp_path / "begins", tmp_path / "other"
    begins.mkdir()
    other.mkdir()
    environ = {**os.environ, "TRACKIO_DIR": "store", "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    command = [sys.executable, "-c", PROGRAM, how]
    subprocess.run(command, cwd=begins, env=environ, timeout=240, check=how != "wait")
    rows = 1
    if how == "wait":
        rows = 1000
        sync = "import sys; from keisei.cli import main; main()"
        command = [sys.executable, "-c", sync, "sync", str(begins / "runs" / "r")]
        done = subprocess.run(command, cwd=other, timeout=240, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert places(tmp_path) == {
        "begins/boards/r": 0,
        "begins/mlflow.db": rows,
        "begins/store/keisei.db": rows,
    }
    for name in ("tensorboard", "mlflow", "trackio"):
        kept = json.loads((begins / "runs" / "r" / f"tracker.{name}.json").read_text())
        assert os.path.isabs(kept["known"]["directory"])


def test_each_kind_of_place_is_made_absolute() -> None:
    """A server, a database in memory and what is absolute stay as they are."""
    for uri, expected in [
        ("sqlite:///a.db", "sqlite:////at/a.db"),
        ("sqlite+pysqlite:///b/../a.db?timeout=5", "sqlite+pysqlite:////at/a.db?timeout=5"),
        ("sqlite:////a.db", "sqlite:////a.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///file:a.db?uri=true", "sqlite:///file:/at/a.db?uri=true"),
        ("file:mlruns", "file:///at/mlruns"),
        ("file:///mlruns", "file:///mlruns"),
        ("./mlruns", "/at/mlruns"),
        ("https://a.b/c", "https://a.b/c"),
        ("databricks", "databricks"),
    ]:
        assert absolute_uri(uri, "/at") == expected
    options = {"log_dir": Path("b"), "other": "c"}
    assert absolute_options("tensorboard", options, "/at") == {"log_dir": "/at/b", "other": "c"}
    assert absolute_options("theirs", options, "/at") == options
    environ = absolute_environ({"TRACKIO_DIR": "t", "HOME": "h"}, "/at")
    assert environ == {"TRACKIO_DIR": "/at/t", "HOME": "h"}


@pytest.mark.parametrize("place", ["$NOT_SET/b", "${NOT_SET}/b", "/tmp/$NOT_SET/b", "~no-such/b"])
def test_a_place_that_is_not_resolved_is_the_trackers_own_failure(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No directory is ever called so, the run goes on, and one warning names the place."""
    monkeypatch.chdir(tmp_path)
    with SessionManager(make_config()) as session:
        assert not session.setup_remote_logging("tensorboard", log_dir=place)
        assert not session.setup_remote_logging("mlflow", tracking_uri=f"sqlite:///{place}.db")
    assert session.status == "completed"
    said = [record.getMessage() for record in caplog.records if place in record.getMessage()]
    assert ["tensorboard" in text for text in said] == [True, False]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(("$", "~"))]
    environ = {"MLFLOW_TRACKING_URI": f"sqlite:///{place}"}
    assert absolute_environ(environ, "/at") == environ
