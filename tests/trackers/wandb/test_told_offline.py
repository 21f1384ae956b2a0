"""Whatever keeps the SDK itself from sending keeps keisei from it."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei.testing.wandb_server import WandbServer
from tests.conftest import MakeConfig
from tests.support.session_files import record_of
from tests.support.wandb_file import find_run_files

WANTED: dict[str, Any] = {"logging": {"wandb_enabled": True, "run_name": "r"}}


def tell(*words: str) -> None:
    """Call the SDK's own command, which writes a settings file under the working directory."""
    program = "import sys; from wandb.cli.cli import cli; cli(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", program, *words], check=True, timeout=120)


def train(make_config: MakeConfig) -> SessionManager[Any]:
    """Run a session that asks for W&B."""
    with SessionManager(make_config(**WANTED)) as session:
        session.log_metrics({"x": 1})
    return session


@pytest.fixture
def environ(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Bring what the test starts to the server."""
    for name, value in server.environ().items():
        monkeypatch.setenv(name, value)
    return monkeypatch


IN_PROCESS = """
import keisei
config = keisei.load_config(overrides={"logging.wandb_enabled": True, "wandb.in_process": True})
with keisei.SessionManager(config, run_name="r") as session:
    session.log_metrics({"x": 1})
"""


def train_in_process() -> dict[str, Any]:
    """Run a program that has the SDK in it, which keeps what it has read; its session file."""
    subprocess.run([sys.executable, "-c", IN_PROCESS], check=True, timeout=120)
    found: dict[str, Any] = json.loads(Path("runs", "r", "session.json").read_text())
    return found


@pytest.mark.requirement("CFG-2", "WB-3")
@pytest.mark.parametrize("wait", [True, False])
def test_wandb_disabled_by_its_own_command_is_untouched(
    make_config: MakeConfig, server: WandbServer, environ: pytest.MonkeyPatch, wait: bool
) -> None:
    """No process is started, nothing is recorded that `keisei sync` would send later."""
    tell("disabled")
    with SessionManager(make_config(**WANTED, tracking={"wait": wait})) as session:
        session.log_metrics({"x": 1})
        assert session.is_wandb_active is False
        assert session.setup_remote_logging("wandb") is False
    assert server.requests == []
    assert not Path(session.run_artifact_dir, "wandb").exists()
    assert record_of(session)["trackers"] == {}


@pytest.mark.requirement("CFG-2", "HOST-4")
def test_a_run_is_offline_where_the_sdk_was_told_so_by_its_own_command(
    make_config: MakeConfig, server: WandbServer, environ: pytest.MonkeyPatch
) -> None:
    """The server hears nothing; the rows are in the run's own file, wherever the SDK runs."""
    tell("offline")
    session = train(make_config)
    assert len(find_run_files(Path(session.run_artifact_dir))) == 1
    assert record_of(session)["trackers"]["wandb"]["mode"] == "offline"
    environ.delenv("WANDB_CONFIG_DIR")
    shutil.rmtree("runs")
    assert train_in_process()["trackers"]["wandb"]["mode"] == "offline"
    assert server.requests == []


@pytest.mark.requirement("CFG-2")
def test_a_settings_file_of_the_user_counts_and_the_directorys_own_goes_before_it(
    make_config: MakeConfig, server: WandbServer, environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the SDK reads them; the environment goes before both."""
    (tmp_path / "home" / "settings").write_text("[default]\nmode = disabled\n")
    assert train(make_config).is_wandb_active is False
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nmode: offline\n[other]\nmode=off\n")
    assert record_of(train(make_config))["trackers"]["wandb"]["mode"] == "offline"
    (tmp_path / "elsewhere" / "wandb").mkdir(parents=True)
    (tmp_path / "elsewhere" / "wandb" / "settings").write_text("[default]\nmode = disabled\n")
    environ.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    assert train(make_config).is_wandb_active is False
    environ.delenv("WANDB_DIR")
    assert server.requests == []
    environ.setenv("WANDB_MODE", "online")
    assert record_of(train(make_config))["trackers"]["wandb"]["mode"] == "online"


@pytest.mark.requirement("CFG-2")
@pytest.mark.parametrize("value", ["offlin", "OFFLINE "])
def test_a_mode_that_nobody_knows_uploads_nothing(
    make_config: MakeConfig,
    server: WandbServer,
    environ: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    value: str,
) -> None:
    """It is one warning; the SDK, which refuses any value but its own, tracks the run all the same.

    A value in capitals, or with a space, is known.
    """
    environ.setenv("WANDB_MODE", value)
    assert record_of(train(make_config))["trackers"]["wandb"]["mode"] == "offline"
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == (value == "offlin")
    assert all("WANDB_MODE='offlin'" in text for text in said)
    shutil.rmtree("runs")
    assert train_in_process()["trackers"]["wandb"]["mode"] == "offline"
    assert server.requests == []
