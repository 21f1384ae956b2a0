"""A failure has a reason: in the session file, the log, the summary, and at the trackers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from keisei import AsyncSessionManager, SessionManager
from keisei.journal.reader import Event, read_run
from keisei.run.session_file import SessionRecord
from keisei.testing import MemoryTracker
from tests.conftest import MakeConfig


def recorded(session: AsyncSessionManager[Any] | SessionManager[Any]) -> Any:
    """Return the failure in the session file."""
    text = Path(session.run_artifact_dir, "session.json").read_text(encoding="utf-8")
    return json.loads(text)["failure"]


def events_of(session: AsyncSessionManager[Any]) -> list[Event]:
    """Return the events in the run's journal."""
    return list(read_run(session.run_artifact_dir).events())


def last_line(session: AsyncSessionManager[Any] | SessionManager[Any]) -> str:
    """Return the last line of the training log."""
    return Path(session.log_file_path).read_text(encoding="utf-8").splitlines()[-1]


@pytest.mark.parametrize("rows", [0, 3])
async def test_an_error_is_recorded_with_its_reason(make_config: MakeConfig, rows: int) -> None:
    """Type, message and place are in the session file, the end line, the summary, the journal."""
    session = AsyncSessionManager(make_config(), run_name="r")
    with pytest.raises(RuntimeError):
        async with session:
            for step in range(rows):
                session.log_metrics({"loss": 1.0}, step)
            raise RuntimeError("CUDA out of memory")
    failure = recorded(session)
    assert (failure["type"], failure["message"]) == ("RuntimeError", "CUDA out of memory")
    assert failure["place"].startswith(f"{__file__}:")
    assert session.get_session_summary()["failure"] == failure
    assert f"failed after {session.get_session_summary()['duration_s']:.3f} s: " in (
        last_line(session)
    )
    assert "RuntimeError: CUDA out of memory (" in last_line(session)
    (event,) = await anyio.to_thread.run_sync(events_of, session)
    assert (event.name, event.data) == ("keisei/failure", failure)


async def test_trackers_are_told_the_reason(make_config: MakeConfig) -> None:
    """It reaches them as the run's last event."""
    tracker = MemoryTracker()
    session = AsyncSessionManager(make_config(), run_name="r")
    with pytest.raises(ValueError, match="no data"):
        async with session:
            await session.setup_remote_logging(tracker)
            session.log_metrics({"loss": 1.0}, 1)
            raise ValueError("no data")
    (run,) = tracker.runs
    assert isinstance(run.records[-1], Event)
    assert run.records[-1].name == "keisei/failure"
    assert run.records[-1].data == recorded(session)


def test_the_blocking_face_records_the_reason(make_config: MakeConfig) -> None:
    """Also where a handler ends the session by itself."""
    session = SessionManager(make_config(), run_name="r")
    session.setup_directories()
    try:
        raise RuntimeError("CUDA out of memory")
    except RuntimeError:
        assert session.finalize_session() == "failed"
    assert recorded(session)["message"] == "CUDA out of memory"


async def test_a_failure_without_an_error_has_no_reason(make_config: MakeConfig) -> None:
    """A status that the program names is all that is known."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        await session.finalize_session("failed")
    assert recorded(session) is None
    assert last_line(session).endswith(" s")
    assert not await anyio.to_thread.run_sync(events_of, session)


async def test_a_later_attempt_has_none_of_the_earlier_ones(make_config: MakeConfig) -> None:
    """The session file is about the last attempt."""
    with pytest.raises(RuntimeError):
        async with AsyncSessionManager(make_config(), run_name="r"):
            raise RuntimeError("once")
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        pass
    assert recorded(session) is None


async def test_session_files_of_older_versions_load(make_config: MakeConfig) -> None:
    """They have no failure."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        pass
    path = Path(session.run_artifact_dir, "session.json")
    older = json.loads(path.read_text(encoding="utf-8"))
    del older["failure"]
    record = SessionRecord.parsed(json.dumps(older).encode())
    assert record is not None
    assert record.failure is None


FORGOTTEN = """
import keisei, logging, sys
logging.basicConfig()
config = keisei.load_config(overrides={"logging.log_dir": sys.argv[1]})
session = keisei.SessionManager(config, run_name="r")
session.setup_directories()
for step in range(50):
    session.log_metrics({"x": 1.0}, step)
"""


@pytest.mark.parametrize(
    ("last", "status"),
    [
        ("", "completed"),
        ("raise RuntimeError('no memory')", "failed"),
        ("raise KeyboardInterrupt", "cancelled"),
        ("session.__enter__()", "cancelled"),
    ],
)
def test_a_forgotten_session_ends_at_the_interpreters_exit(
    tmp_path: Path, last: str, status: str
) -> None:
    """Its rows are written, it is recorded as what it was, and one warning says so."""
    command = [sys.executable, "-c", FORGOTTEN + last, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    record = json.loads((tmp_path / "r" / "session.json").read_text(encoding="utf-8"))
    assert record["status"] == status
    assert (record["failure"] or {}).get("message") == {
        "failed": "no memory",
        "cancelled": "SIGINT" if "Interrupt" in last else None,
    }.get(status)
    assert len(read_run(str(tmp_path / "r")).columns("x")[0]) == 50
    assert done.stderr.count("was not ended before the interpreter's exit") == 1
    assert "session ended" in (tmp_path / "r" / "training.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("before", [True, False])
def test_an_end_that_is_registered_for_the_exit_is_the_sessions_own(
    tmp_path: Path, before: bool
) -> None:
    """Whether it was registered before the directories were set up or after: nothing is said."""
    hook = "import atexit; atexit.register(session.finalize_session)\n"
    program = FORGOTTEN + hook
    if before:
        program = FORGOTTEN.replace("session.setup", f"{hook}session.setup", 1)
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr
    record = json.loads((tmp_path / "r" / "session.json").read_text(encoding="utf-8"))
    assert record["status"] == "completed"


@pytest.mark.parametrize(
    ("last", "status", "said"),
    [
        ("raise RuntimeError('no memory')", "failed", "no memory"),
        ("raise KeyboardInterrupt", "cancelled", "SIGINT"),
        ("sys.last_value = ValueError('at a prompt'); sys.ps1 = '>'", "completed", None),
    ],
)
def test_an_end_at_the_exit_knows_the_error_that_ended_the_program(
    tmp_path: Path, last: str, status: str, said: str | None
) -> None:
    """A hook has no exception in its hands, and the run has failed all the same."""
    program = f"{FORGOTTEN}import atexit; atexit.register(session.finalize_session)\n{last}"
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, capture_output=True, timeout=60, check=False)
    record = json.loads((tmp_path / "r" / "session.json").read_text(encoding="utf-8"))
    assert (record["status"], (record["failure"] or {}).get("message")) == (status, said)
