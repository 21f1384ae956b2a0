"""An owner whose run was taken over writes nothing more to it, and learns it."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import AsyncSessionManager, SessionInUseError, SessionManager, TakenOverError
from keisei.session.view import SessionView
from tests.conftest import MakeConfig
from tests.support.session_files import record_of

TIMEOUT = 30.0  # seconds


def take_over(session: AsyncSessionManager[Any] | SessionManager[Any]) -> dict[str, bytes]:
    """Write the session file as the next owner does, and return what stands there then."""
    record = record_of(session)
    record |= {"attempt": record["attempt"] + 1, "owner": record["owner"] | {"pid": 4242}}
    run = Path(session.run_artifact_dir)
    (run / "next").write_text(json.dumps(record))
    os.replace(run / "next", run / "session.json")
    return content(session)


def content(session: SessionView[Any]) -> dict[str, bytes]:
    """Return all files of a run, by their paths there."""
    run = Path(session.run_artifact_dir)
    files = [path for path in run.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


async def test_the_body_is_cancelled_when_another_owner_has_the_run(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """By the next row that it logs; the error leaves the block, and the end is a failure."""
    session = AsyncSessionManager(make_config(logging={"owner_timeout": 60}), run_name="r")
    with pytest.raises(TakenOverError, match="process 4242 .* as attempt 2"):
        async with session:
            session.log_metrics({"loss": 1.0}, step=1)
            await session.flush()
            before = take_over(session)
            session.log_metrics({"loss": 2.0}, step=2)
            await anyio.sleep(TIMEOUT)
    assert content(session) == before
    summary = session.get_session_summary()
    assert (summary["status"], summary["failure"]["type"]) == ("failed", "TakenOverError")
    assert caplog.text.count("ERROR    keisei:ending.py") == 1


async def test_an_idle_body_is_cancelled_too(make_config: MakeConfig) -> None:
    """The thread that shows signs of life notices it."""
    session = AsyncSessionManager(make_config(logging={"owner_timeout": 0.4}), run_name="r")
    with pytest.raises(TakenOverError):
        async with session:
            before = take_over(session)
            await anyio.sleep(TIMEOUT)
    assert content(session) == before


async def test_a_body_that_fails_first_keeps_its_own_error(make_config: MakeConfig) -> None:
    """What it raises leaves the block; the session says that the run was taken over."""
    session = AsyncSessionManager(make_config(), run_name="r")
    with pytest.raises(KeyError):
        async with session:
            before = take_over(session)
            session.log_metrics({"loss": 2.0}, step=2)
            raise KeyError("own")
    assert content(session) == before
    assert session.status == "failed"


def test_a_blocking_body_learns_it_at_its_next_call(make_config: MakeConfig) -> None:
    """Nobody can interrupt it: the next call that logs, flushes or saves raises."""
    session = SessionManager(make_config(logging={"owner_timeout": 0.2}), run_name="r")
    with pytest.raises(SessionInUseError, match="taken the run over"), session:
        session.log_metrics({"loss": 1.0}, step=1)
        session.flush()
        before = take_over(session)
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            session.log_metrics({"loss": 2.0}, step=2)
            time.sleep(0.01)
    assert content(session) == before
    for call in (
        lambda: session.log_metrics({"loss": 3.0}),
        lambda: session.log_event("late"),
        lambda: session.log_evaluation({"score": 1.0}),
        session.log_handler,
        session.flush,
    ):
        with pytest.raises((TakenOverError, RuntimeError)):
            call()
    assert content(session) == before


def test_no_way_to_write_is_left(make_config: MakeConfig) -> None:
    """Config, start line, log lines, evaluations, checkpoints, the end: all are refused."""
    session = SessionManager(make_config(), run_name="r")
    session.setup_directories()
    session.save_effective_config()
    handler = session.log_handler()
    log = logging.getLogger("taken")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        before = take_over(session)
        log.info("a line")
        with pytest.raises((TakenOverError, RuntimeError)):
            session.save_effective_config()
        session.log_session_start()
        with pytest.raises(TakenOverError):
            session.save_checkpoint({"step": 1}, 1)
        with pytest.raises(TakenOverError):
            session.save_final_model({"step": 1})
        with pytest.raises(TakenOverError):
            session.log_evaluation({"score": 1.0})
        session.finalize_session()
    finally:
        log.removeHandler(handler)
    assert content(session) == before


def test_rows_that_were_being_written_are_taken_back(make_config: MakeConfig) -> None:
    """The run is taken over between the last look and the write."""
    session = SessionManager(make_config(), run_name="r")
    session.setup_directories()
    session.log_metrics({"loss": 1.0}, step=1)
    session.flush()
    journal = Path(session.run_artifact_dir, "metrics.1.journal")
    owned, before = session._facts.owned, journal.read_bytes()
    assert owned is not None
    check, calls = owned.home.check, []

    def late(directory: Any) -> None:
        check(directory)
        calls.append(directory)
        if len(calls) == 1:
            take_over(session)

    owned.home.check = late
    session.log_metrics({"loss": 2.0}, step=2)
    session.finalize_session()
    assert calls
    assert journal.read_bytes() == before
