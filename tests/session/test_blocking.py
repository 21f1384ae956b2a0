"""The blocking face: in a script, in a thread, in a notebook, and interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei.testing import MemoryTracker
from tests.conftest import MakeConfig
from tests.support.session_files import record_of


@pytest.mark.requirement("FACE-3", "FACE-4")
def test_a_script_takes_the_steps_one_by_one(make_config: MakeConfig) -> None:
    """The origin document's sequence works as it is written there."""
    session = SessionManager(make_config(env={"seed": 1}))
    paths = session.setup_directories()
    assert session.setup_wandb() is False
    session.save_effective_config()
    session.setup_seeding()
    lines: list[str] = []
    session.log_session_info(lines.append, agent_info={"type": "PPOAgent", "name": "Shogi"})
    session.log_session_start()
    assert session.state["session_active"]
    assert len(lines) == 6
    assert os.path.isdir(paths["model_dir"])
    assert session.finalize_session() == "completed"
    assert record_of(session)["status"] == "completed"


@pytest.mark.requirement("FACE-3", "FIN-1")
def test_a_with_block_ends_with_the_truth(make_config: MakeConfig) -> None:
    """What leaves the body decides."""
    tracker = MemoryTracker()
    with pytest.raises(ZeroDivisionError), SessionManager(make_config()) as session:
        assert session.setup_remote_logging(tracker)
        raise ZeroDivisionError
    assert session.status == record_of(session)["status"] == "failed"
    assert tracker.runs[0].ends == ["failed"]


@pytest.mark.requirement("FIN-1")
def test_a_manual_end_sees_the_exception_on_its_way_out(make_config: MakeConfig) -> None:
    """Through the portal, too."""
    session = SessionManager(make_config())
    session.setup_directories()
    with pytest.raises(ZeroDivisionError):
        try:
            raise ZeroDivisionError
        finally:
            assert session.finalize_session() == "failed"
    try:
        raise KeyError
    except KeyError:
        within = SessionManager(make_config())
        assert within.finalize_session() == "completed"


@pytest.mark.requirement("FACE-4")
def test_it_works_beside_a_running_loop(tmp_path: Path) -> None:
    """As in a notebook, whose loop runs while a cell calls."""
    code = (
        "import asyncio\n"
        "from keisei import AppConfig, SessionManager\n"
        "async def cell():\n"
        "    with SessionManager(AppConfig()) as session: session.log_session_info(print)\n"
        "    print(session.status)\n"
        "asyncio.run(cell())"
    )
    environ = {**os.environ, "KEISEI_LOG_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "completed"


@pytest.mark.requirement("FACE-4", "FIN-3")
def test_many_threads_end_one_session_once(make_config: MakeConfig) -> None:
    """Threads that call at the same time see one end."""
    session = SessionManager(make_config())
    session.setup_directories()
    gate = threading.Barrier(8)
    ends: list[str] = []

    def end(status: Any) -> None:
        gate.wait()
        ends.append(session.finalize_session(status))

    threads = [
        threading.Thread(target=end, args=("failed" if n % 2 else "cancelled",)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 8
    assert set(ends) == {record_of(session)["status"]}
    log = Path(session.log_file_path).read_text(encoding="utf-8")
    assert log.count("session ended") == 1


INTERRUPTED = """
import sys, time
from keisei import AppConfig, SessionManager
with SessionManager(AppConfig(), run_name="r"):
    print("running", flush=True)
    time.sleep(60)
"""
INTERRUPTED_ASYNC = """
import sys, anyio
from keisei import AppConfig, AsyncSessionManager
async def main():
    async with AsyncSessionManager(AppConfig(), run_name="r"):
        print("running", flush=True)
        await anyio.sleep(60)
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.requirement("FACE-4", "FIN-1")
@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("face", ["blocking", "asyncio", "trio"])
def test_ctrl_c_ends_the_run_as_cancelled(tmp_path: Path, face: str) -> None:
    """An interrupted program leaves a run that says so."""
    code = INTERRUPTED if face == "blocking" else INTERRUPTED_ASYNC
    process = subprocess.Popen(
        [sys.executable, "-c", code, face],
        env={**os.environ, "KEISEI_LOG_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert process.returncode in (1, -signal.SIGINT)
    record = json.loads((tmp_path / "r" / "session.json").read_text(encoding="utf-8"))
    assert record["status"] == "cancelled"


def test_no_thread_is_left_when_a_call_is_over(make_config: MakeConfig) -> None:
    """The portal is leased for a call and held no longer; what watches ends with the session."""
    before = set(threading.enumerate())

    def all_as_before(besides: str = "-") -> None:
        for thread in set(threading.enumerate()) - before:
            if not thread.name.startswith(besides):
                until = time.monotonic() + 60
                while thread in threading.enumerate():  # one that has yet to begin cannot be joined
                    assert time.monotonic() < until, thread.name
                    time.sleep(0.001)

    with SessionManager(make_config()):
        all_as_before("keisei-writer")
    all_as_before()
