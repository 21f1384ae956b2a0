"""The faults for tests do what they are named for, for as long as they are asked to."""

from __future__ import annotations

import errno
import signal
import sys
import time
from pathlib import Path

import anyio
import pytest

from keisei import AsyncSessionManager, CheckpointError, DirectorySetupError, SessionManager
from keisei.journal.reader import read_run
from keisei.testing import Faults, MemoryTracker
from keisei.testing.faults import _before_writes
from tests.conftest import MakeConfig


@pytest.mark.requirement("TEST-1")
def test_a_full_disk_takes_nothing_until_there_is_space(make_config: MakeConfig) -> None:
    """Rows wait, a checkpoint fails with the reason, and afterwards everything is written."""
    with Faults() as faults, SessionManager(make_config()) as session:
        with faults.full_disk():
            session.log_metrics({"loss": 1.0}, step=1)
            with pytest.raises(CheckpointError, match="No space left"):
                session.save_checkpoint({"weights": [1.0]}, step=1)
            written = list(read_run(session.run_artifact_dir).rows())
        session.save_checkpoint({"weights": [1.0]}, step=2)
    assert written == []
    assert [row.step for row in read_run(session.run_artifact_dir).rows()] == [1]
    assert session.status == "completed"


@pytest.mark.requirement("TEST-1")
def test_no_session_starts_on_a_full_disk(make_config: MakeConfig) -> None:
    """It is the error that a real one is."""
    with Faults() as faults, faults.full_disk():
        session = SessionManager(make_config())
        with pytest.raises(DirectorySetupError, match="No space left") as raised:
            session.setup_directories()
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOSPC


@pytest.mark.requirement("TEST-1")
def test_a_slow_disk_holds_up_each_write(make_config: MakeConfig) -> None:
    """A session takes longer by at least what its writes are held up."""
    with Faults() as faults, faults.slow_disk(0.05):
        began = time.monotonic()
        SessionManager(make_config()).setup_directories()
        assert time.monotonic() - began >= 0.05


@pytest.mark.requirement("TEST-1")
@pytest.mark.parametrize("at", ["start", "send", "finish"])
async def test_a_tracker_hangs_where_it_is_told(at: str, make_config: MakeConfig) -> None:
    """The session goes on without it, and the tracker gets the rest when it is let go."""
    with Faults() as faults:
        hung = faults.hung_tracker(at)  # type: ignore[arg-type]
        async with AsyncSessionManager(make_config(tracking={"finish_timeout": 0.1})) as session:
            assert await session.setup_remote_logging(hung) == (at != "start")
            session.log_metrics({"loss": 1.0}, step=1)
        assert session.status == "completed"
        assert hung.hangs.is_set()
        assert [run.ends for run in hung.runs] == ([] if at == "start" else [[]])
    if at != "start":
        with anyio.fail_after(30):
            while not hung.runs[0].ends:
                await anyio.sleep(0.001)
        assert hung.runs[0].ends == ["completed"]


def test_a_tracker_hangs_in_no_other_method() -> None:
    """A method that a tracker does not have is refused."""
    with Faults() as faults, pytest.raises(ValueError, match="not at 'close'"):
        faults.hung_tracker("close")  # type: ignore[arg-type]


@pytest.mark.requirement("TEST-1")
def test_whatever_keisei_writes_is_held_up(make_config: MakeConfig) -> None:
    """A fault comes before directories, before files, and before what a checkpoint streams."""
    numpy = pytest.importorskip("numpy")
    seen: set[str] = set()
    with (
        _before_writes(lambda: seen.add(sys._getframe(1).f_code.co_qualname), syncs=True),
        SessionManager(make_config()) as session,
    ):
        session.save_checkpoint({"weights": numpy.zeros(1000)}, step=1)
    assert seen == {"_Disk.fsync", "_Disk.mkdir", "_Disk.write", "_File.write"}


def live_on(path: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: Path(path).write_text("asked to end"))
    Path(path).write_text("begun")
    for _ in range(300):  # a signal's handler does not end the sleep of a whole minute
        time.sleep(0.1)


@pytest.mark.requirement("TEST-1")
def test_a_process_is_killed_once_something_is_true(tmp_path: Path) -> None:
    """It is gone then; one that ends by itself, or too late, is an error."""
    path = tmp_path / "mark"
    with Faults() as faults:
        faults.kill(live_on, str(path), until=path.read_text)
        assert path.read_text() == "begun"
        with pytest.raises(RuntimeError, match="print ended before it was killed, with status 0"):
            faults.kill(print, until=lambda: False)
        with pytest.raises(TimeoutError, match=r"live_on was killed after 0\.01 s"):
            faults.kill(live_on, str(path), until=lambda: False, timeout=0.01)


def test_what_hangs_is_let_go_at_the_end() -> None:
    """A fault does not outlive its test, nor does the disk stay full."""
    with Faults() as faults:
        hung = faults.hung_tracker()
    assert hung._released.is_set()
    assert isinstance(hung, MemoryTracker)
