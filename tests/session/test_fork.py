"""A process forked from a session's own, as a data loader's workers are, cannot touch the run."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keisei import AsyncSessionManager, ForkedSessionError, SessionManager
from tests.conftest import MakeConfig
from tests.support.forks import in_child
from tests.support.session_files import record_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


STEPS: dict[str, Callable[[SessionManager[Any]], object]] = {
    "setup_directories": lambda session: session.setup_directories(),
    "setup_wandb": lambda session: session.setup_wandb(),
    "save_effective_config": lambda session: session.save_effective_config(),
    "log_session_start": lambda session: session.log_session_start(),
    "finalize_session": lambda session: session.finalize_session("failed"),
    "handle_signals": lambda session: session.handle_signals(),
}


def contents(directory: str) -> dict[str, bytes]:
    """Return every file below a directory with what it holds."""
    return {str(p): p.read_bytes() for p in Path(directory).rglob("*") if p.is_file()}


# The parent's snapshot would be among the files that are compared.
@pytest.mark.parametrize("step", STEPS)
def test_no_step_works_in_a_forked_child(make_config: MakeConfig, step: str) -> None:
    """It is a typed error that names both processes; nothing is written, the parent goes on."""
    with SessionManager(make_config(), run_name="mine") as session:
        before = contents(session.run_artifact_dir)
        said = in_child(lambda: STEPS[step](session))
        assert said.startswith(ForkedSessionError.__name__)
        assert str(os.getpid()) in said
        assert contents(session.run_artifact_dir) == before
        session.save_effective_config()
    assert session.status == record_of(session)["status"] == "completed"


# The parent's snapshot would be among the files that are compared.
async def test_a_child_that_leaves_the_block_does_not_end_the_run(make_config: MakeConfig) -> None:
    """On the async face nothing is written by it; what it reads stays readable."""
    async with AsyncSessionManager(make_config()) as session:
        before = contents(session.run_artifact_dir)

        def leave() -> str:
            coroutine = session.__aexit__(ValueError, ValueError("in the child"), None)
            try:
                coroutine.send(None)
            except StopIteration:
                return session.run_name
            return "suspended"

        assert in_child(leave) == f"returned {session.run_name}"
        assert contents(session.run_artifact_dir) == before
    assert record_of(session)["status"] == "completed"


# The parent's snapshot would be among the files that are compared.
def test_a_child_that_leaves_the_with_block_does_not_end_the_run(make_config: MakeConfig) -> None:
    """The error that ends the child goes on there, and the parent's run stays open."""
    session = SessionManager(make_config())

    def body() -> None:
        with session:
            pid.append(fork())

    def fork() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            raise ValueError("in the child")
        return child

    pid: list[int] = []
    owner = os.getpid()
    try:
        body()
    except ValueError:
        if os.getpid() != owner:
            os._exit(7)
        raise
    assert os.waitstatus_to_exitcode(os.waitpid(pid[0], 0)[1]) == 7
    assert session.status == record_of(session)["status"] == "completed"
    log = Path(session.log_file_path).read_text(encoding="utf-8")
    assert log.count("session ended") == 1


def square(number: int) -> int:
    """Work as a data loader's worker does."""
    return number * number


def test_a_pool_of_forked_workers_leaves_the_run_alone(make_config: MakeConfig) -> None:
    """Workers that come and go, and are terminated by SIGTERM, are nothing to the session."""
    with SessionManager(make_config(signals={"handle": True})) as session:
        before = contents(session.run_artifact_dir)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with multiprocessing.get_context("fork").Pool(3) as pool:  # terminates on the way out
                assert pool.map(square, range(10)) == [n * n for n in range(10)]
        assert contents(session.run_artifact_dir) == before
    assert record_of(session)["status"] == "completed"


SIGNALLED = """
import os, signal, time
from keisei import SessionManager, load_config
with SessionManager(load_config(overrides={"signals": {"handle": True}})) as session:
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            time.sleep(20)
            os._exit(3)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
assert session.status == "completed"
"""


def test_a_signal_that_comes_with_the_fork_is_not_lost(tmp_path: Path) -> None:
    """A child is ended by the SIGTERM that it gets before its first instruction.

    In a small process, which forks in no time: the signal comes as early as it can.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SIGNALLED],
        env={**os.environ, "KEISEI_LOG_DIR": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_forked_child_keeps_no_signal_of_the_sessions(make_config: MakeConfig) -> None:
    """SIGTERM ends it as if there were no session."""
    with SessionManager(make_config(signals={"handle": True})) as session:
        plain = in_child(lambda: signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        assert plain == "returned True"
    assert session.status == "completed"


ORPHAN = """
import os, signal, sys
from keisei import AppConfig, SessionManager
session = SessionManager(AppConfig(), run_name="orphaned")
session.setup_directories()
if os.fork() == 0:
    signal.pause()
print("ready", flush=True)
signal.pause()
"""


def test_a_child_that_outlives_its_parent_does_not_hold_the_run(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """The parent is killed, its worker lives on, and the next start takes the run up."""
    command = [sys.executable, "-W", "ignore", "-c", ORPHAN]
    environ = {**os.environ, "KEISEI_LOG_DIR": str(tmp_path / "runs")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environ, process_group=0
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        os.kill(parent.pid, signal.SIGKILL)
        os.waitpid(parent.pid, 0)
        parent.returncode = -signal.SIGKILL
        try:
            with SessionManager(make_config(), run_name="orphaned") as session:
                assert session.get_session_summary()["attempt"] == 2
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
    assert json.loads(Path(session.run_artifact_dir, "session.json").read_text())["attempt"] == 2
