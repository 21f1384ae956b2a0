"""Whether W&B is active, however it was asked for, and which processes serve it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from tests.conftest import MakeConfig
from tests.support.session_files import record_of
from tests.support.wandb_file import find_run_files, read_run_file, wait_for_exit_record
from tests.support.wandb_program import until

IN_PROCESS: dict[str, Any] = {"mode": "offline", "in_process": True}


def project_of(session: SessionManager[Any]) -> str | None:
    """Read the project that the run file names."""
    (path,) = find_run_files(Path(session.run_artifact_dir))
    return wait_for_exit_record(path).project


@pytest.mark.requirement("WB-1", "WB-2")
@pytest.mark.parametrize("wait", [True, False])
def test_wandb_that_is_asked_for_later_is_active(make_config: MakeConfig, wait: bool) -> None:
    """The config does not name it, `setup_remote_logging` does, with options of its own."""
    config = make_config(wandb=IN_PROCESS, tracking={"wait": wait})
    with SessionManager(config) as session:
        assert session.is_wandb_active is False
        assert session.wandb_run is None
        assert session.setup_remote_logging("wandb", project="mine") is True
        assert session.is_wandb_active is True
        assert session.wandb_run is not None
        assert session.setup_wandb() is True
        session.log_metrics({"x": 1})
    assert project_of(session) == "mine"
    assert session.get_session_summary()["is_wandb_active"] is True


@pytest.mark.requirement("WB-1", "WB-2")
@pytest.mark.parametrize("where", ["logging", "tracking"])
@pytest.mark.parametrize("wait", [True, False])
def test_wandb_that_is_active_is_not_started_twice(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, wait: bool, where: str
) -> None:
    """Named by `logging.wandb_enabled` or among the trackers, it is the same one.

    Options that come too late are not taken unsaid.
    """
    named: dict[str, Any] = {"tracking": {"wait": wait}}
    if where == "logging":
        named["logging"] = {"wandb_enabled": True}
    else:
        named["tracking"]["trackers"] = ["wandb"]
    with SessionManager(make_config(**named, wandb=IN_PROCESS)) as session:
        assert session.setup_remote_logging("wandb") is True
        assert session.is_wandb_active is True
        assert session.setup_remote_logging("wandb", project="too-late") is False
        (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert "already, with other options" in warning
        assert session.is_wandb_active is True
        assert session.setup_wandb() is True
        session.log_metrics({"x": 1})
    assert project_of(session) == "keisei"


@pytest.mark.requirement("WB-1", "WB-2", "HOST-1")
def test_a_host_process_takes_the_options_too(make_config: MakeConfig) -> None:
    """Before `setup_wandb()`, which then has nothing to do."""
    config = make_config(wandb={"mode": "offline"})
    session = SessionManager(config)
    session.setup_directories()
    assert session.setup_remote_logging("wandb", project="mine") is True
    assert session.is_wandb_active is True
    assert session.setup_wandb() is True
    session.finalize_session()
    assert project_of(session) == "mine"


@pytest.mark.requirement("WB-1")
@pytest.mark.parametrize("in_process", [False, True])
def test_options_that_make_no_sense_are_one_warning(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, in_process: bool
) -> None:
    """Nothing is raised; W&B is asked for again with better ones, and is active."""
    config = make_config(wandb={"mode": "offline", "in_process": in_process})
    with SessionManager(config) as session:
        assert session.setup_remote_logging("wandb", project="a/b") is False
        assert session.is_wandb_active is False
        warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warnings) == 1
        assert "wandb did not start" in warnings[0]
        assert "project" in warnings[0]
        assert session.setup_remote_logging("wandb", project="ab") is True
        assert session.is_wandb_active is True
    assert project_of(session) == "ab"
    assert record_of(session)["trackers"]["wandb"]["state"] == "finished"


@pytest.mark.requirement("WB-2")
def test_a_start_that_is_retried_makes_wandb_active(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it is not, and what was logged meanwhile arrives."""
    import wandb

    init, tries = wandb.init, []

    def fail_twice(**options: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("not yet")
        return init(**options)

    monkeypatch.setattr("wandb.init", fail_twice)
    config = make_config(logging={"wandb_enabled": True}, wandb=IN_PROCESS)
    with SessionManager(config) as session:
        assert session.is_wandb_active is False
        session.log_metrics({"x": 1})
        until(lambda: session.is_wandb_active)
        assert session.setup_wandb() is True
    (path,) = find_run_files(Path(session.run_artifact_dir))
    assert [row["x"] for row in read_run_file(path).history] == [1]


TWO = """
import json, os, sys
from pathlib import Path
from keisei import SessionManager, load_config
from tests.support.wandb_program import left_over
config = load_config(overrides=["logging.wandb_enabled=true", "wandb.mode=offline"])
with SessionManager(config, run_name="a") as first:
    os.environ.update(json.loads(sys.argv[1]))
    with SessionManager(config, run_name="b") as second:
        for n in range(20):
            first.log_metrics({"who": 1}, step=n)
            second.log_metrics({"who": 2}, step=n)
        print(json.dumps(sorted(left_over(Path(sys.argv[2])).values())))
"""


@pytest.mark.requirement("HOST-1")
@pytest.mark.skipif(os.name == "nt", reason="looks for processes in /proc")
@pytest.mark.parametrize(("changed", "hosts"), [({}, 1), ({"WANDB_PROJECT": "other"}, 2)])
def test_sessions_share_a_host_process_where_their_environment_is_the_same(
    tmp_path: Path, changed: dict[str, str], hosts: int
) -> None:
    """One process and one service for two sessions; another environment has its own."""
    done = subprocess.run(
        [sys.executable, "-c", TWO, json.dumps(changed), str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "KEISEI_LOG_DIR": str(tmp_path / "runs"),
            "KEISEI_TEST": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    programs = json.loads(done.stdout)
    assert programs.count("wandb-core") == hosts
    assert sum(name.startswith("python") for name in programs) == 1 + hosts
    for number, name in enumerate("ab", start=1):
        (path,) = find_run_files(tmp_path / "runs" / name)
        file = wait_for_exit_record(path)
        assert [row["who"] for row in file.history] == [number] * 20
        assert file.project == (changed.get("WANDB_PROJECT", "keisei") if number == 2 else "keisei")
