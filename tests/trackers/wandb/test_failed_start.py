"""A W&B that did not start is remembered: whoever looks is told, and the rows are sent later."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei.testing.wandb_server import WandbServer
from keisei.trackers.wandb.sdk import OLDEST, release_of
from tests.conftest import MakeConfig
from tests.support.session_files import record_of

COMMAND = "from keisei.cli import main; main()"
ROOT = Path(__file__).parents[3]
OTHER_SDK = """
__version__ = "%s"


class Settings:
    def __init__(self, **settings):
        raise TypeError("extra fields not permitted: x_transaction_log_flush_interval")


def init(**options):
    raise AssertionError("its settings come before")
"""


def call(*words: str) -> tuple[int, str]:
    """Call one of keisei's commands; its status, and what it says."""
    command = [sys.executable, "-c", COMMAND, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.requirement("WB-1", "WB-9")
@pytest.mark.parametrize("in_process", [False, pytest.param(True, marks=pytest.mark.storm)])
def test_rows_of_a_start_that_failed_are_sent_later(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, in_process: bool
) -> None:
    """The session file, `keisei doctor` and `keisei sync` say that they are missing."""
    with WandbServer() as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        server.set_mode("500")
        config = make_config(
            logging={"wandb_enabled": True},
            wandb={"offline_fallback": False, "init_timeout": 60, "in_process": in_process},
            tracking={"linger": 0},
        )
        with SessionManager(config, run_name="r") as session:
            assert session.is_wandb_active is False
            for step in range(5):
                session.log_metrics({"x": 1.0}, step=step)
        tracked = record_of(session)["trackers"]["wandb"]
        assert tracked["state"] == "broken"
        assert tracked["behind"] == 5
        assert "cannot be reached" in tracked["problem"]
        assert "keisei sync r" in call("doctor", "r")[1]
        status, said = call("sync", "--dry-run", "--json")
        assert status == 1
        assert [it["rows"] for it in json.loads(said)] == [5]
        server.set_mode("ok")
        status, said = call("sync")
        assert status == 0, said
        (run,) = server.runs.values()
        assert len(run.history) == 5
        assert "up to date" in call("sync")[1]


@pytest.mark.requirement("WB-1", "WB-10")
@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("0.12.1", "wandb 0.12.1 is installed, and keisei needs wandb>=0.27: "),
        ("99.1", "wandb 99.1 is installed; keisei was tried with wandb 0.27 to 0.31: "),
    ],
)
def test_an_sdk_that_does_not_fit_is_told_by_its_version(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
    problem: str,
) -> None:
    """Not by what its settings have against ours alone; the rows are kept for a better one."""
    (tmp_path / "site" / "wandb").mkdir(parents=True)
    (tmp_path / "site" / "wandb" / "__init__.py").write_text(OTHER_SDK % version)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("KEISEI_TEST", "a process of its own")
    config = make_config(logging={"wandb_enabled": True}, wandb={"mode": "offline"})
    with SessionManager(config, run_name="r") as session:
        session.log_metrics({"x": 1.0}, step=0)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert said[-1].count(problem) == 1, said
    assert record_of(session)["trackers"]["wandb"]["behind"] == 1


def test_the_range_is_that_of_the_package() -> None:
    """What pip would install is a patch of the oldest minor that is taken; no upper bound."""
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (wanted,) = (line for line in project["project"]["dependencies"] if line.startswith("wandb"))
    assert wanted.startswith(f"wandb>={OLDEST[0]}.{OLDEST[1]}.")
    assert "," not in wanted
    assert release_of(importlib.import_module("wandb")) >= OLDEST
