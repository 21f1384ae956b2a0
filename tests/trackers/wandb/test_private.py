"""Each private name of W&B's SDK taken away: runs are tracked and ended, with one warning."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from keisei.errors import TrackerError
from keisei.journal.reader import Event, Row
from keisei.trackers.base import RunInfo
from keisei.trackers.wandb import private, sdk
from keisei.trackers.wandb.tracker import WandbTracker
from tests.support.wandb_client import client_environ
from tests.support.wandb_file import find_run_files, wait_for_exit_record

pytestmark = pytest.mark.xdist_group("wandb-private")
WITHOUT_WANDB = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'", name="wandb")

sys.meta_path.insert(0, Refusing())
from keisei import AppConfig, SessionManager

with SessionManager(AppConfig(), run_name="r") as session:
    session.log_metrics({"x": 1.0}, step=0)
    session.log_evaluation({"reward": 2.0}, step=0)
print(session.status, "wandb" in sys.modules)
"""


def test_the_installed_release_has_every_name() -> None:
    """What is missing without a reason is a name that the file has wrong."""
    release = sdk.release_of(sdk.load_sdk())
    lacks = {one.where for one in private.missing()}
    assert lacks == {one.where for one in private.NAMES.values() if one.since > release}


@pytest.mark.requirement("WB-1", "WB-10")
@pytest.mark.parametrize("key", private.NAMES)
def test_without_a_private_name_a_run_is_tracked_and_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    key: str,
) -> None:
    """Rows, log and exit code are in the SDK's own file; two runs have one warning."""
    reading = list(private.hidden)
    monkeypatch.setattr(private, "hidden", {key})
    monkeypatch.setattr(private, "_warned", threading.Event())
    tracker, found = WandbTracker(mode="offline"), []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        about = RunInfo(f"{name}-{key}".replace("_", "-"), name, 1, str(tmp_path / name), "{}")
        run = tracker.start(about)
        rows = [Row(n, 1.7e9, n, 1, {"loss": float(n)}) for n in range(3)]
        run.send([*rows, Event(3, 1.7e9, 1, "saved", {})])
        assert run.position() in (None, (1, 3))
        run.finish("completed")
        found += find_run_files(tmp_path / name)[:1]
    monkeypatch.setattr(private, "hidden", {*reading})
    for file in found:
        held = wait_for_exit_record(file)
        assert [row["loss"] for row in held.history] == [0, 1, 2]
        assert held.exit_code == 0
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    release = sdk.release_of(sdk.load_sdk())
    assert len(said) == (release >= private.NAMES[key].since), said
    assert all(private.NAMES[key].where in text for text in said)


def test_a_release_whose_files_lag_shares_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each part is told which release can, and rank 0 tracks the run alone, with one warning."""
    monkeypatch.setattr(private, "hidden", {sdk.FLUSH_SETTING})
    monkeypatch.setattr(private, "_warned", threading.Event())
    private._warned.set()
    tracker = WandbTracker(mode="offline")
    about = RunInfo("01SHARED", "r", 1, str(tmp_path), "{}", shared=True)
    with pytest.raises(TrackerError, match=r"needs wandb>=0\.31"):
        tracker.start(replace(about, part="rank1"))
    tracker.start(about).finish("completed")
    assert [r.getMessage() for r in caplog.records if "wandb<0.31" in r.getMessage()]


def test_doctor_says_what_the_installed_sdk_lacks(tmp_path: Path) -> None:
    """With its name, what it is for, and what is done without; for programs too."""
    command = [sys.executable, "-c", "from keisei.cli import main; main()", "doctor", "--wandb"]
    environ = client_environ(tmp_path, {}) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    assert "keisei needs wandb>=0.27" in told.stdout
    told = subprocess.run(
        [*command, "--json"], env=environ, capture_output=True, text=True, timeout=120
    )
    document = json.loads(told.stdout)
    assert document["fits"]
    release = sdk.release_of(sdk.load_sdk())
    late = [one for one in private.NAMES.values() if one.since > release]
    assert [(one["name"], one["without"]) for one in document["missing"]] == [
        (one.where, one.without) for one in late
    ]
    assert all(one["wanted_for"] for one in document["missing"])


def test_sessions_run_where_wandb_is_not_installed(tmp_path: Path) -> None:
    """Its import is refused: nothing asks for it."""
    environ = client_environ(tmp_path, {}) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_WANDB],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.stdout.split() == ["completed", "False"], told.stderr
