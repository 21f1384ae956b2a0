"""A preemption is one thing, whatever has told it; and a request ends a run from elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from keisei import (
    AppConfig,
    AsyncSessionManager,
    Preempting,
    RunCancelledError,
    SessionEndedError,
    SessionManager,
)
from keisei._io.directories import OpenDirectory
from keisei.distributed.meeting import Meeting
from keisei.run.stop_request import StopRequest, read_request, write_request
from tests.conftest import MakeConfig
from tests.support.session_files import record_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR2")

LEAVES = 128 + signal.SIGUSR2
Session = AsyncSessionManager[AppConfig] | SessionManager[AppConfig]


def request(session: Session, status: str, **more: Any) -> None:
    """Write a request of the run's attempt into its directory, as another process does."""
    record = record_of(session)
    asked = {"attempt": record["attempt"], "source": "a test", "asked_at": "now", **more}
    found = StopRequest.model_validate(
        {"session_id": record["session_id"], "status": status, **asked}
    )
    with OpenDirectory(session.run_artifact_dir) as directory:
        write_request(directory, found)


def by_call(session: Session, tmp_path: Path) -> None:
    session.preempt(time.time() + 30.0, "the scheduler")


def by_file(session: Session, tmp_path: Path) -> None:
    (tmp_path / "preempt").write_text(f"{time.time() + 30.0}\n")


def by_request(session: Session, tmp_path: Path) -> None:
    request(session, "preempted", deadline=time.time() + 30.0)


WAYS = {"the scheduler": by_call, "file": by_file, "a test": by_request}


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> AppConfig:
    """A config with a file that tells a preemption, and no signals."""
    return make_config(distributed={"preempt_file": str(tmp_path / "preempt")})


@pytest.mark.requirement("RANK-6")
@pytest.mark.parametrize("source", WAYS)
async def test_whatever_tells_it_leads_to_the_same(
    config: AppConfig, tmp_path: Path, source: str
) -> None:
    """The body goes on to its next safe point, is saved and cancelled there: it is preempted."""
    session = AsyncSessionManager(config, run_name="r")
    with pytest.raises(SystemExit) as left:
        async with session:
            session.setup_auto_checkpointing(10**6, state={"a": 1})
            await session.checkpoint_if_due(1)
            assert session.preempting is None
            await anyio.to_thread.run_sync(WAYS[source], session, tmp_path)
            with anyio.fail_after(20):
                while session.preempting is None:
                    await anyio.sleep(0.01)
            assert isinstance(session.preempting, Preempting)
            await session.checkpoint_if_due(2)
            raise AssertionError("the body goes on")
    assert left.value.code == LEAVES
    assert session.preempting is not None
    assert session.preempting.source == source
    assert 0.0 < session.preempting.deadline - time.time() < 31.0
    found = record_of(session)
    assert (found["status"], found["failure"]["message"]) == ("preempted", source)
    assert session.get_session_summary()["checkpoints"]["last_step"] == 2


@pytest.mark.parametrize("source", WAYS)
def test_the_blocking_face_ends_at_its_next_call(
    config: AppConfig, tmp_path: Path, source: str
) -> None:
    """Without signals there is no other way to tell it; with a policy it is the safe point."""
    session = SessionManager(config, run_name="r")
    with pytest.raises(SystemExit) as left, session:
        WAYS[source](session, tmp_path)
        while True:
            session.log_metrics({"x": 1.0})
            time.sleep(0.01)
    assert left.value.code == LEAVES
    assert record_of(session)["status"] == "preempted"


def test_a_blocking_body_that_waits_is_interrupted(config: AppConfig, tmp_path: Path) -> None:
    """Where the session handles signals, whatever it waits for."""
    config.signals.handle = True
    session = SessionManager(config, run_name="r")
    begun = time.monotonic()
    with pytest.raises(SystemExit) as left, session:
        by_file(session, tmp_path)
        threading.Event().wait(60)
    assert left.value.code == LEAVES
    assert time.monotonic() - begun < 50.0
    assert record_of(session)["status"] == "preempted"


def test_an_old_file_is_no_preemption(
    config: AppConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is there when the session begins is of an earlier preemption; a warning says so."""
    (tmp_path / "preempt").touch()
    with SessionManager(config, run_name="r") as session:
        session._watching.serve()  # a look
        session.log_metrics({"x": 1.0})
    assert session.status == "completed"
    assert "counts once it changes" in caplog.text


def test_the_first_that_comes_decides(config: AppConfig) -> None:
    """A second preemption, and a signal of the same one, change nothing, nor does a cancel."""
    config.signals.handle = True
    session = SessionManager(config, run_name="r")
    with pytest.raises(SystemExit) as left, session:
        session.setup_auto_checkpointing(10**6, state={})
        session.preempt(source="one")
        session.preempt(source="two")
        signal.raise_signal(signal.SIGUSR2)
        request(session, "cancelled")
        assert session.preempting is not None
        assert session.preempting.source == "one"
        session.checkpoint_if_due(3)
    assert left.value.code == LEAVES
    assert record_of(session)["status"] == "preempted"


def test_what_is_no_preemption_is_refused(config: AppConfig) -> None:
    """A deadline that is no time, a source that is no text, a session that is over."""
    with SessionManager(config, run_name="r") as session:
        with pytest.raises(ValueError, match="deadline"):
            session.preempt(float("nan"))
        with pytest.raises(TypeError, match="source"):
            session.preempt(source=3)  # type: ignore[arg-type]
        assert session.preempting is None
    with pytest.raises(SessionEndedError):
        session.preempt()


@pytest.mark.requirement("RANK-8")
async def test_a_request_cancels_the_run(config: AppConfig) -> None:
    """The body is cancelled where it waits, and an error leaves the block, not the process."""
    session = AsyncSessionManager(config, run_name="r")
    with pytest.raises(RunCancelledError, match="a test"):
        async with session:
            await anyio.to_thread.run_sync(partial(request, session, "cancelled"))
            while True:  # on trio a task is not cancelled without a scope: the next call raises
                session.log_metrics({"x": 1.0})
                await anyio.sleep(0.01)
    found = record_of(session)
    assert (found["status"], found["failure"]["message"]) == ("cancelled", "a test")
    await anyio.sleep(0)  # the task itself is not cancelled any more


async def test_a_cancelled_run_leaves_the_others_alone(make_config: MakeConfig) -> None:
    """Of two sessions of a program, the one that was asked ends."""
    ended: dict[str, str] = {}

    async def live(name: str, ready: Callable[[Session], object]) -> None:
        session = AsyncSessionManager(make_config(), run_name=name)
        try:
            async with session:
                await anyio.to_thread.run_sync(ready, session)
                with anyio.move_on_after(60 if name == "a" else 3):
                    while True:
                        session.log_metrics({"x": 1.0})
                        await anyio.sleep(0.01)
        except RunCancelledError:
            pass
        ended[name] = session.status

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live, "a", partial(request, status="cancelled"))
        tasks.start_soon(live, "b", lambda session: None)
    assert ended == {"a": "cancelled", "b": "completed"}


@pytest.mark.parametrize(
    "change", [{"attempt": 7}, {"session_id": "another"}], ids=["attempt", "session"]
)
def test_a_request_for_another_attempt_is_not_looked_at(
    config: AppConfig, change: dict[str, Any]
) -> None:
    """What was asked of an earlier attempt does not end the next one."""
    with SessionManager(config, run_name="r") as session:
        request(session, "cancelled", **change)
        session._watching.serve()
        session.log_metrics({"x": 1.0})
    assert session.status == "completed"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"status": "completed"}', b"\xff"])
def test_a_damaged_request_is_one_warning(
    config: AppConfig, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    """It ends nothing, and the watch goes on."""
    with SessionManager(config, run_name="r") as session:
        Path(session.run_artifact_dir, "stop.json").write_bytes(text)
        session._watching.serve()
        session._watching.serve()
        assert caplog.text.count("no request") == 1
    assert session.status == "completed"


def test_a_preemption_is_shared_with_the_other_processes(config: AppConfig) -> None:
    """Of a run of several ranks, the one that is told writes it for the others."""
    session = SessionManager(config, run_name="r")
    with pytest.raises(SystemExit), session:
        session.setup_auto_checkpointing(10**6, state={})
        home = session._facts.owned
        assert home is not None
        session._watching.meeting = Meeting(home.home, 1, 0, 2)
        session.preempt(2e9, "a test")
        session._watching.serve()
        with OpenDirectory(session.run_artifact_dir) as directory:
            found = read_request(directory)
        assert found is not None
        assert (found.status, found.source, found.deadline) == ("preempted", "a test", 2e9)
        Meeting(home.home, 1, 1, 2).learn(1, ends=True)
        session.checkpoint_if_due(1)


STUBBORN = """
import sys, time
from keisei import SessionManager, load_config
config = load_config(overrides={"logging": {"log_dir": "runs"}})
with SessionManager(config, run_name="r") as session:
    session.preempt(time.time() + 0.5, "a test")
    while True:
        time.sleep(0.1)
"""


def test_after_the_deadline_the_process_ends(tmp_path: Path) -> None:
    """A body that does not give in is ended with the process, and the end is on the disk."""
    done = subprocess.run([sys.executable, "-c", STUBBORN], cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == LEAVES
    record = json.loads((tmp_path / "runs" / "r" / "session.json").read_bytes())
    assert record["status"] == "preempted"
