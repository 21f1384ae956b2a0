"""W&B with its real SDK: what it writes offline, and what keisei leaves alone."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from keisei import AsyncSessionManager, NotReadyError, SessionManager, TrackerError
from keisei.trackers.wandb.mode import requested_mode
from tests.conftest import TWO_BACKENDS, MakeConfig
from tests.support.session_files import record_of
from tests.support.wandb_file import RunFile, find_run_files, wait_for_exit_record

OFFLINE: dict[str, Any] = {"logging": {"wandb_enabled": True}, "wandb": {"mode": "offline"}}
IN_PROCESS: dict[str, Any] = {**OFFLINE, "wandb": {"mode": "offline", "in_process": True}}
WHERE = [pytest.param(OFFLINE, id="host"), pytest.param(IN_PROCESS, id="program")]


def run_files(session: AsyncSessionManager[Any] | SessionManager[Any]) -> list[RunFile]:
    """Read what the SDK has written of a session's run, one file for each attempt."""
    paths = find_run_files(Path(session.run_artifact_dir))
    return [wait_for_exit_record(path) for path in sorted(paths)]


@pytest.mark.requirement("WB-1", "WB-6", "CFG-5", "HOST-1", "HOST-4")
@pytest.mark.parametrize("where", WHERE)
async def test_an_offline_run_holds_config_rows_and_exit_code(
    make_config: MakeConfig, where: dict[str, Any]
) -> None:
    """The SDK's own file has the redacted effective config, every row, the name and the end."""
    config = make_config(**where, env={"seed": 3})
    async with AsyncSessionManager(config, run_name="r") as session:
        assert session.is_wandb_active is True
        for step in range(5):
            session.log_metrics({"loss": step / 10}, step=step)
    (file,) = run_files(session)
    assert file.run_id == session.session_id
    assert file.display_name == "r"
    assert file.project == "keisei"
    text = Path(session.run_artifact_dir, "effective_config.json").read_text(encoding="utf-8")
    assert type(config).model_validate(file.config) == config
    assert type(config).model_validate_json(text) == config
    assert [row["loss"] for row in file.history] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert file.exit_code == 0
    tracked = record_of(session)["trackers"]["wandb"]
    assert tracked["run_id"] == session.session_id
    assert tracked["mode"] == "offline"
    assert tracked["state"] == "finished"
    assert str(file.path).startswith(tracked["directory"])


@pytest.mark.requirement("FIN-1", "WB-6")
@pytest.mark.parametrize(
    ("status", "code"), [("completed", 0), ("failed", 1), ("cancelled", 255), ("preempted", 255)]
)
@pytest.mark.parametrize("anyio_backend", TWO_BACKENDS)
async def test_the_exit_code_tells_how_the_run_ended(
    make_config: MakeConfig, status: Any, code: int
) -> None:
    """Nothing but a completed run is a success; 255 is what W&B shows as killed."""
    async with AsyncSessionManager(make_config(**IN_PROCESS)) as session:
        await session.finalize_session(status)
    (file,) = run_files(session)
    assert file.exit_code == code


@pytest.mark.requirement("WB-6")
async def test_the_id_is_stable_over_attempts(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt has a file of its own, all of one id; the project is the environment's."""
    monkeypatch.setenv("WANDB_PROJECT", "from-environment")
    for _ in range(2):
        async with AsyncSessionManager(make_config(**IN_PROCESS), run_name="r") as session:
            session.log_metrics({"x": 1})
    files = run_files(session)
    assert [file.run_id for file in files] == [session.session_id] * 2
    assert [file.project for file in files] == ["from-environment"] * 2
    assert [len(file.history) for file in files] == [1, 1]


@pytest.mark.requirement("WB-5", "HOST-4")
async def test_each_session_has_its_own_run_and_the_global_one_is_left_alone(
    make_config: MakeConfig,
) -> None:
    """With the SDK in the program, two sessions at once do not mix, and `wandb.run` is not set.

    What users log by the run itself goes between keisei's rows, media too.
    """
    async with AsyncSessionManager(make_config(**IN_PROCESS), run_name="a") as first:
        import wandb

        async with AsyncSessionManager(make_config(**IN_PROCESS), run_name="b") as second:
            assert first.wandb_run is not None
            assert second.wandb_run is not None
            assert first.wandb_run is not second.wandb_run
            assert wandb.run is None
            first.wandb_run.log({"who": 1})
            second.wandb_run.log({"who": 2})
            page = wandb.Html("<b>seen</b>", inject=False)
            await anyio.to_thread.run_sync(second.wandb_run.log, {"page": page})
        first.log_metrics({"who": 1})
    assert [row["who"] for row in run_files(first)[0].history] == [1, 1]
    (file,) = run_files(second)
    assert [row.get("who") for row in file.history] == [2, None]
    media = file.path.parent / "files" / file.history[1]["page"]["path"]
    assert media.read_text() == "<b>seen</b>"


@pytest.mark.requirement("WB-5", "HOST-1")
def test_the_run_object_of_another_process_is_asked_for_in_vain(make_config: MakeConfig) -> None:
    """The error names the switch and the methods that do; the program has not imported the SDK."""
    with SessionManager(make_config(**OFFLINE)) as session:
        assert session.is_wandb_active is True
        with pytest.raises(TrackerError, match=r"log_metrics\(\).*wandb\.in_process"):
            _ = session.wandb_run
    assert session.get_session_summary()["is_wandb_active"] is True


@pytest.mark.requirement("WB-1", "WB-5")
def test_the_blocking_face_tracks_too(make_config: MakeConfig) -> None:
    """`setup_wandb()` says whether W&B tracks the run, twice the same."""
    session = SessionManager(make_config(**IN_PROCESS))
    session.setup_directories()
    assert session.setup_wandb() is True
    assert session.setup_wandb() is True
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError
    assert [file.exit_code for file in run_files(session)] == [1]


@pytest.mark.requirement("WB-2")
@pytest.mark.parametrize("face", [AsyncSessionManager, SessionManager])
def test_whether_wandb_is_active_is_not_known_before_its_step(
    make_config: MakeConfig, face: Any
) -> None:
    """Reading it too early names the step."""
    session = face(make_config())
    with pytest.raises(NotReadyError, match=r"setup_wandb\(\)"):
        _ = session.is_wandb_active
    assert session.wandb_run is None


@pytest.mark.requirement("WB-3")
@pytest.mark.parametrize(
    "how", ["logging.wandb_enabled=false", "wandb.mode=disabled", "WANDB_MODE=disabled"]
)
def test_disabled_means_untouched(tmp_path: Path, how: str) -> None:
    """The SDK is not even imported, no thread is started, and the step says `False`."""
    code = (
        "import sys, threading\n"
        "from keisei import SessionManager, load_config\n"
        "config = load_config(overrides=['logging.wandb_enabled=true', *sys.argv[1:]])\n"
        "with SessionManager(config) as session:\n"
        "    print(session.is_wandb_active, session.wandb_run, session.setup_wandb())\n"
        "names = [thread.name for thread in threading.enumerate() if 'wandb' in thread.name]\n"
        "print('wandb' in sys.modules, names)\n"
    )
    environ = {**os.environ, "KEISEI_LOG_DIR": str(tmp_path / "runs")}
    arguments = [how]
    if how.startswith("WANDB_"):
        environ["WANDB_MODE"] = "disabled"
        arguments = []
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False None False", "False []"], done.stderr
    assert done.stderr == ""
    assert not list((tmp_path / "runs").rglob("*wandb*"))


@pytest.mark.requirement("CFG-2")
@pytest.mark.parametrize(
    ("mode", "environ", "expected"),
    [
        ("online", {"WANDB_MODE": "offline"}, "online"),
        (None, {"WANDB_MODE": "offline"}, "offline"),
        (None, {"WANDB_MODE": "dryrun"}, "offline"),
        (None, {"WANDB_MODE": "Disabled"}, "disabled"),
        (None, {"WANDB_MODE": " Offline\n"}, "offline"),
        (None, {"WANDB_MODE": "off"}, "disabled"),
        (None, {"WANDB_MODE": "None"}, "disabled"),
        (None, {"WANDB_MODE": "false "}, "disabled"),
        (None, {"WANDB_MODE": "nonsense"}, "offline"),
        (None, {"WANDB_MODE": "online"}, "online"),
        (None, {"WANDB_MODE": " "}, None),
        (None, {"WANDB_DISABLED": "True"}, "disabled"),
        (None, {"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, "disabled"),
        (None, {"WANDB_DISABLED": "perhaps"}, "offline"),
        (None, {"WANDB_DISABLED": "false"}, None),
        ("online", {"WANDB_DISABLED": "true"}, "online"),
        (None, {}, None),
    ],
)
def test_the_mode_is_the_configs_then_the_environments(
    make_config: MakeConfig, mode: Any, environ: dict[str, str], expected: str | None
) -> None:
    """`None` leaves it to whether there is a login."""
    assert requested_mode(make_config(wandb={"mode": mode}).wandb, environ) == expected


@pytest.mark.requirement("WB-7", "CFG-2")
@pytest.mark.parametrize("mode", [None, "online"])
@pytest.mark.parametrize("anyio_backend", TWO_BACKENDS)
async def test_without_a_key_the_run_is_offline_and_a_warning_says_how_to_log_in(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, mode: Any
) -> None:
    """Nothing prompts and nothing waits."""
    wandb = {"mode": mode, "in_process": mode is None}
    config = make_config(logging={"wandb_enabled": True}, wandb=wandb)
    async with AsyncSessionManager(config) as session:
        assert session.is_wandb_active
        assert record_of(session)["trackers"]["wandb"]["mode"] == "offline"
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "wandb login" in warnings[0]


@pytest.mark.requirement("WB-7", "FIN-4")
def test_no_secret_is_in_anything_that_is_written(tmp_path: Path) -> None:
    """Key, arguments, user-info in URLs: no byte of any file or line holds one of them."""
    code = (
        "import sys\n"
        "from keisei import AppConfig, SessionManager, load_config\n"
        "class Mine(AppConfig):\n"
        "    api_key: str = 'canary-config-key'\n"
        "    store: str = 's3://user:canary-url@host/x'\n"
        "config = load_config(overrides=['logging.wandb_enabled=true', 'wandb.mode=offline'],"
        " model=Mine)\n"
        "with SessionManager(config) as session:\n"
        "    session.log_session_info(print)\n"
        "    session.log_metrics({'x': 1})\n"
        "print(session.get_session_summary(), session)\n"
    )
    environ = {
        **os.environ,
        "KEISEI_LOG_DIR": str(tmp_path / "runs"),
        "WANDB_API_KEY": "canary" * 6 + "0123",
    }
    command = [sys.executable, "-c", code, "--password=canary-argument"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        assert b"canary" not in path.read_bytes(), path


@pytest.mark.requirement("WB-1")
async def test_a_failure_of_the_sdk_is_one_warning(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever `wandb.init` raises, the step says `False`, the run goes on, and it is retried."""

    def init(**options: Any) -> None:
        raise RuntimeError("no such thing as https://user:canary@host")

    monkeypatch.setattr("wandb.init", init)
    async with AsyncSessionManager(make_config(**IN_PROCESS)) as session:
        assert session.is_wandb_active is False
        assert session.wandb_run is None
        assert await session.setup_wandb() is False
    assert session.status == "completed"
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "wandb did not start" in warnings[0]
    assert "no such thing" in warnings[0]
    assert "it is tried again" in warnings[0]
    assert "canary" not in warnings[0]
