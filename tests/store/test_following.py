"""A session is in the registry from its claim to its end, and never waits for it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keisei import AppConfig, AsyncSessionManager, SessionManager
from keisei.cli import sync as _sync  # noqa: F401 - registers the command
from keisei.cli.program import app
from keisei.store import reading
from keisei.store.database import Database
from keisei.store.rows import RunRow
from tests.conftest import MakeConfig

LIMIT = 60.0  # seconds that a host process may take on a busy machine
SECRET = "s3cr3t-pass-w0rd"


def row(url: str, name: str = "r", **wanted: object) -> RunRow:
    """Return a run's row, once it has what is wanted."""
    deadline = time.monotonic() + LIMIT
    while True:
        with Database(url) as database, database.reading() as connection:
            found = reading.find(connection, f"name:{name}")
        if found and all(getattr(found[0], key) == value for key, value in wanted.items()):
            return found[0]
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


@pytest.mark.requirement("REG-1")
async def test_a_session_is_in_the_registry(make_config: MakeConfig, tmp_path: Path) -> None:
    """The row says how the run stands while it runs, and how it has ended."""
    url = f"sqlite:///{tmp_path}/registry.db"
    config = make_config(registry={"url": url}, env={"seed": 3})
    async with AsyncSessionManager(config, run_name="r") as session:
        for step in range(5):
            session.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
        await session.save_checkpoint({"x": 1}, step=4)
        await session.flush()
    found = await _in_thread(url)
    assert (found.session_id, found.attempt) == (session.session_id, 1)
    assert found.checkpoints == {"count": 1, "latest": 4, "best": None}
    assert (found.config["env"], found.metrics["loss"].last) == ({"seed": 3, "device": "cpu"}, 0.2)


async def _in_thread(url: str) -> RunRow:
    import anyio.to_thread

    return await anyio.to_thread.run_sync(lambda: row(url, status="completed"))


def test_a_resumed_run_has_one_row(make_config: MakeConfig, tmp_path: Path) -> None:
    """The next attempt replaces the row; what it supersedes is not in its sums."""
    url = f"sqlite:///{tmp_path}/registry.db"
    for first, value in ((0, 9.0), (2, 1.0)):
        with SessionManager(make_config(registry={"url": url}), run_name="r") as session:
            if first:
                session.resume_at(first - 1)
            for step in range(first, 4):
                session.log_metrics({"loss": value}, step=step)
    found = row(url, attempt=2, status="completed")
    assert (found.metrics["loss"].mean, found.metrics["loss"].count) == (5.0, 4)


@pytest.mark.requirement("REG-1")
@pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")
def test_a_killed_program_has_died_there(tmp_path: Path) -> None:
    """The host process writes what the journal holds, and that the owner has died."""
    url = f"sqlite:///{tmp_path}/registry.db"
    program = (
        "import sys\n"
        "from keisei import AppConfig, SessionManager\n"
        "with SessionManager(AppConfig(), run_name='r') as session:\n"
        "    session.log_metrics({'loss': 0.5}, step=7)\n"
        "    session.flush()\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "KEISEI_LOG_DIR": str(tmp_path), "KEISEI_REGISTRY_URL": url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        row(url, status="running")
        victim.kill()
    assert row(url, status="died").metrics["loss"].step == 7


def test_a_slow_start_is_no_warning(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where a session ends before its host process is up, nothing is wrong, and the row follows."""
    monkeypatch.setattr("keisei.session.tracking.REGISTRY_TIMEOUT", 0.001)
    url = f"sqlite:///{tmp_path}/registry.db"
    with SessionManager(make_config(registry={"url": url}), run_name="r") as session:
        session.log_metrics({"loss": 0.5}, step=7)
    found = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert found == []
    assert row(url, status="completed").metrics["loss"].step == 7


def test_a_slow_end_is_no_warning(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the last row is written after the session's end, nothing is wrong: it follows."""
    caplog.set_level(logging.INFO, "keisei")
    monkeypatch.setattr("keisei.session.tracking.REGISTRY_TIMEOUT", 0.001)
    url = f"sqlite:///{tmp_path}/registry.db"
    with SessionManager(make_config(registry={"url": url}), run_name="r") as session:
        session.log_metrics({"loss": 0.5}, step=7)
        deadline = time.monotonic() + LIMIT
        while _state(session) != "live":
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.02)
        for step in range(8, 2000):
            session.log_metrics({"loss": 0.5}, step=step)
    found = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert found == []
    assert any("did not finish within" in record.message for record in caplog.records)
    deadline = time.monotonic() + LIMIT
    while row(url, status="completed").metrics["loss"].step != 1999:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _state(session: SessionManager[AppConfig]) -> object:
    return session.get_session_summary()["trackers"]["registry"]["state"]


@pytest.mark.requirement("REG-2")
@pytest.mark.parametrize("length", ["short", "long"])
def test_an_outage_loses_nothing(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    length: str,
) -> None:
    """A database that is away is one warning in all; `keisei sync` brings what was missed."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    url = f"sqlite:///{blocked}/registry.db"
    with SessionManager(make_config(registry={"url": url}), run_name="r") as session:
        session.log_metrics({"loss": 0.5}, step=7)
        deadline = time.monotonic() + LIMIT
        while length == "long" and _state(session) != "broken":
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.02)
    assert session.status == "completed"
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert ["registry" in text for text in said] == [True], said
    blocked.unlink()
    monkeypatch.setenv("KEISEI_REGISTRY_URL", url)
    done = CliRunner().invoke(app, ["sync", "--root", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    assert row(url, status="completed").metrics["loss"].step == 7


@pytest.mark.requirement("REG-2")
def test_a_password_stands_nowhere(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The password in the registry's URL is in no file of the run, and in no word of keisei's."""
    caplog.set_level(logging.DEBUG, "keisei")
    url = f"postgresql://me:{SECRET}@127.0.0.1:1/runs"
    with SessionManager(make_config(registry={"url": url}), run_name="r") as session:
        session.log_metrics({"loss": 0.5})
    assert SECRET not in caplog.text
    for path in (tmp_path / "runs").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_two_registries_for_one_run_are_said(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next attempt in another registry is one warning, and goes on."""
    for name in ("one", "other"):
        config = make_config(registry={"url": f"sqlite:///{tmp_path}/{name}.db"})
        with SessionManager(config, run_name="r") as session:
            session.log_metrics({"loss": 0.5}, step=7)
            session.flush()
    assert session.status == "completed"
    assert caplog.text.count("was in another registry") == 1


def test_a_session_in_a_copy_has_no_row(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The row stays the first directory's; the copy's session goes on, with one warning."""
    url = f"sqlite:///{tmp_path}/registry.db"
    with SessionManager(make_config(registry={"url": url}), run_name="r") as session:
        pass
    row(url, status="completed")
    shutil.copytree(tmp_path / "runs" / "r", tmp_path / "runs" / "copy")
    with SessionManager(make_config(registry={"url": url}), run_name="copy") as session:
        deadline = time.monotonic() + LIMIT
        while _state(session) != "broken":
            assert time.monotonic() < deadline, caplog.text
            time.sleep(0.02)
    assert session.status == "completed"
    assert row(url, attempt=1).directory == str(tmp_path / "runs" / "r")
    assert caplog.text.count("is a copy of") == 1
