"""The id that a run has on W&B: the one that the SDK took, for all its attempts and for uploads."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

from keisei import SessionManager
from keisei.testing.wandb_server import WandbServer
from tests.conftest import MakeConfig
from tests.support.session_files import record_of

SYNC = "from keisei.cli import main; main()"


@pytest.fixture
def environ(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Bring what the test starts to the server."""
    for name, value in server.environ().items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def train(make_config: MakeConfig, mode: str, rows: int = 3, name: str = "r") -> dict[str, Any]:
    """Run a session with W&B; what its session file says of it."""
    config = make_config(logging={"wandb_enabled": True}, wandb={"mode": mode, "project": "p"})
    with SessionManager(config, run_name=name) as session:
        for step in range(rows):
            session.log_metrics({"x": 1.0}, step=step)
    tracked: dict[str, Any] = record_of(session)["trackers"]["wandb"]
    return tracked


def sync() -> str:
    """Call `keisei sync`, which has everything sent, and return what it says."""
    command = [sys.executable, "-c", SYNC, "sync"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.requirement("WB-6", "WB-9")
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_sweeps_run_is_one_run_after_a_sync_too(
    make_config: MakeConfig, server: WandbServer, environ: pytest.MonkeyPatch, mode: str
) -> None:
    """Its id is the sweep's, which the SDK takes whatever it is asked for; nothing goes up twice.

    A later attempt, which no sweep has started, goes on with it.
    """
    environ.setenv("WANDB_SWEEP_ID", "s1")
    environ.setenv("WANDB_RUN_ID", "abcd1234")
    assert train(make_config, mode)["run_id"] == "abcd1234"
    sync()
    assert list(server.runs) == ["abcd1234"]
    assert len(server.runs["abcd1234"].history) == 3
    assert "up to date" in sync()
    environ.delenv("WANDB_SWEEP_ID")
    environ.delenv("WANDB_RUN_ID")
    assert train(make_config, mode)["run_id"] == "abcd1234"
    sync()
    assert list(server.runs) == ["abcd1234"]
    assert len(server.runs["abcd1234"].history) == 6


@pytest.mark.requirement("WB-5", "WB-6")
def test_a_second_session_of_a_sweeps_program_does_not_take_the_run(
    make_config: MakeConfig, environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on without W&B, and says why."""
    environ.setenv("WANDB_SWEEP_ID", "s1")
    environ.setenv("WANDB_RUN_ID", "abcd1234")
    config = make_config(logging={"wandb_enabled": True}, wandb={"mode": "offline"})
    with SessionManager(config, run_name="first") as first:
        assert train(make_config, "offline", name="second")["run_id"] is None
        said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert any("another session of this program tracks it" in text for text in said)
        first.log_metrics({"x": 1.0})
    assert record_of(first)["trackers"]["wandb"]["state"] == "finished"


@pytest.mark.requirement("WB-6")
def test_an_id_in_the_environment_that_is_not_taken_is_said(
    make_config: MakeConfig, environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run has its own, the same for all attempts."""
    environ.setenv("WANDB_RUN_ID", "abcd1234")
    tracked = train(make_config, "offline")
    assert tracked["run_id"] != "abcd1234"
    (said,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "WANDB_RUN_ID is set" in said
    assert tracked["run_id"] in said
