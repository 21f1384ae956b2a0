"""A tracker in a process of its own: whatever becomes of that, each row is there once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from keisei import AsyncSessionManager, SessionManager
from keisei._io import process
from keisei.errors import MissingExtraError, TrackerError
from keisei.testing import check_tracker
from keisei.trackers.host.client import ApartTracker, _error
from tests.conftest import MakeConfig
from tests.support.line_tracker import lines_of, series_of
from tests.support.session_files import record_of
from tests.support.third_party import install

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "site"))


def pid_of(session: Any) -> int:
    """Give the id of the process in which the session's tracker lives."""
    return int(Path(session.run_artifact_dir, "pid").read_text())


def gone(pid: int) -> bool:
    """Wait until a process has ended, within ten seconds."""
    give_up = time.monotonic() + 10
    while process.process_start(pid) is not None and time.monotonic() < give_up:
        time.sleep(0.01)
    return process.process_start(pid) is None


def held(session: Any) -> list[tuple[object, object]]:
    """Give attempt and number of everything that the tracker has."""
    return [(line[0], line[1]) for line in lines_of(session.run_artifact_dir)]


async def test_its_rows_arrive_and_its_process_ends(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """It is another process; what it prints disturbs nobody, what keisei logs there is heard."""
    async with AsyncSessionManager(make_config()) as session:
        assert await session.setup_remote_logging("apart", says="careful") is True
        for step in range(600):
            session.log_metrics({"loss": 1.0}, step=step)
        pid = await anyio.to_thread.run_sync(pid_of, session)
    assert pid != os.getpid()
    assert await anyio.to_thread.run_sync(gone, pid)
    assert await anyio.to_thread.run_sync(held, session) == [(1, n) for n in range(600)]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == ["careful"]
    known = record_of(session)["trackers"]["apart"]
    assert (known["state"], known["run_id"]) == ("finished", session.session_id)


@pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")
def test_a_process_that_dies_is_replaced(make_config: MakeConfig) -> None:
    """Killed ten times in the middle of a run, it is started again, and no row is lost or twice."""
    with SessionManager(make_config(journal={"max_delay": 0.0})) as session:
        session.setup_remote_logging("apart")
        killed = set()
        for step in range(2000):
            session.log_metrics({"loss": 1.0}, step=step)
            if step % 200 == 100:
                session.flush()
                killed.add(pid_of(session))
                os.kill(pid_of(session), signal.SIGKILL)
                give_up = time.monotonic() + 20
                while pid_of(session) in killed and time.monotonic() < give_up:
                    session.log_metrics({"waiting": 1.0})  # it is missed when it is needed
                    time.sleep(0.005)
        assert len(killed) == 10
        session.flush()
        logged = session.get_session_summary()["journal"]["logged"]
    assert logged >= 2000
    assert held(session) == [(1, n) for n in range(logged)]


async def test_one_that_hangs_is_ended_with_the_session(make_config: MakeConfig) -> None:
    """At the deadline its process is ended: nothing of it outlives the session."""
    async with AsyncSessionManager(make_config(wandb={"finish_timeout": 0.5})) as session:
        assert await session.setup_remote_logging("apart", hangs_in="send") is True
        session.log_metrics({"loss": 1.0})
        pid = await anyio.to_thread.run_sync(pid_of, session)
    known = record_of(session)["trackers"]["apart"]
    assert (known["state"], known["behind"]) == ("abandoned", 1)
    assert await anyio.to_thread.run_sync(gone, pid)


PROGRAM = """
import sys, time
from keisei import SessionManager, load_config
sys.path.insert(0, sys.argv[1])
with SessionManager(load_config(), run_name="r") as session:
    session.setup_remote_logging("apart", hangs_in=sys.argv[2])
    session.log_metrics({"loss": 1.0})
    session.flush()
    print(open(session.run_artifact_dir + "/pid").read(), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")
@pytest.mark.parametrize("hangs_in", ["", "send"])
def test_it_ends_with_a_program_that_is_killed(tmp_path: Path, hangs_in: str) -> None:
    """Nothing of it outlives the program, hanging or not."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "site"), hangs_in],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    program.kill()
    program.communicate(timeout=20)
    assert gone(pid)


@pytest.mark.skipif(os.name == "nt", reason="sends signals as POSIX does")
def test_signals_for_the_program_are_not_for_it(make_config: MakeConfig) -> None:
    """Whoever sends them to it, it goes on until the session's end."""
    with SessionManager(make_config()) as session:
        session.setup_remote_logging("apart")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            os.kill(pid_of(session), number)
        session.log_metrics({"loss": 1.0})
    assert held(session) == [(1, 0)]
    assert record_of(session)["trackers"]["apart"]["state"] == "finished"


async def test_what_is_wrong_is_told_as_it_was(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong option, and an error of a call, by their own names."""
    async with AsyncSessionManager(make_config(journal={"max_delay": 0.0})) as session:
        assert await session.setup_remote_logging("apart", no_such_option=1) is False
        assert "no_such_option" in caplog.text
    async with AsyncSessionManager(make_config(wandb={"finish_timeout": 0.5})) as session:
        assert await session.setup_remote_logging("apart", refuses=True) is True
        session.log_metrics({"loss": 1.0})
    known = record_of(session)["trackers"]["apart"]
    assert known["problem"] == "ConnectionError: the server is away"
    assert isinstance(_error("MissingExtraError", "pip install it"), MissingExtraError)
    assert isinstance(_error("TrackerError", "no"), TrackerError)
    assert repr(_error("ZeroDivisionError", "by zero")) == "ZeroDivisionError('by zero')"


def test_it_keeps_to_the_protocol() -> None:
    """What the tracker does in its process is what it does in this one."""
    assert len(check_tracker(partial(ApartTracker, "apart", {}), series_of)) == 7
