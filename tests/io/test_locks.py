"""A lock keeps other processes away until it is released or its process has ended."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei._io import locks
from keisei._io.files import OpenDirectory
from tests.support.forks import in_child

HOLDER = """
import sys, time
from keisei._io import files, locks
with files.OpenDirectory(sys.argv[1]) as directory:
    lock = locks.hold(directory, "x.lock", content=b'{"pid": "theirs"}', timeout=5)
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[OpenDirectory]:
    """An open directory for the lock's file."""
    with OpenDirectory(str(tmp_path)) as opened:
        yield opened


@pytest.fixture
def holder(directory: OpenDirectory) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the lock; a line to it releases, a second one ends it."""
    command = [sys.executable, "-c", HOLDER, directory.path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert said(process) == "held"
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """Read the next line of the other process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Write a line to the other process."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def hold(directory: OpenDirectory, timeout: float = 0.0) -> locks.HeldLock:
    """Take the lock as this process."""
    return locks.hold(directory, "x.lock", content=b"mine", timeout=timeout)


def is_free(directory: OpenDirectory) -> bool:
    """Check by taking and releasing it that nobody holds the lock."""
    try:
        hold(directory).release()
    except locks.LockedError:
        return False
    return True


def test_a_lock_that_another_process_holds_is_an_error_that_says_who(
    directory: OpenDirectory, holder: subprocess.Popen[str]
) -> None:
    """The error is an OSError that names the file and has what the holder has written."""
    with pytest.raises(locks.LockedError) as caught:
        hold(directory, timeout=0.1)
    assert caught.value.holder == b'{"pid": "theirs"}'
    assert caught.value.filename == os.path.join(directory.path, "x.lock")
    assert isinstance(caught.value, OSError)


def test_a_wait_ends_when_the_holder_releases(
    directory: OpenDirectory, holder: subprocess.Popen[str]
) -> None:
    """The next one has the lock although the first holder's process goes on."""
    waited: list[locks.HeldLock] = []
    waiting = threading.Thread(target=lambda: waited.append(hold(directory, timeout=30)))
    waiting.start()
    tell(holder)
    assert said(holder) == "released"
    waiting.join()
    with waited[0] as lock:
        assert lock.exclusive
        assert directory.read("x.lock") == b"mine"
    assert is_free(directory)


def test_a_killed_holder_leaves_no_lock(
    directory: OpenDirectory, holder: subprocess.Popen[str]
) -> None:
    """The end of its process releases it, and what it has written is replaced."""
    holder.kill()
    holder.wait()
    with hold(directory):
        assert directory.read("x.lock") == b"mine"


def test_a_wait_can_be_given_up(directory: OpenDirectory, holder: subprocess.Popen[str]) -> None:
    """An event that is set ends it long before its timeout."""
    given_up = threading.Event()
    threading.Timer(0.05, given_up.set).start()
    begun = time.monotonic()
    with pytest.raises(locks.LockedError):
        locks.hold(directory, "x.lock", content=b"", timeout=60, give_up=given_up)
    assert time.monotonic() - begun < 30


def test_a_lock_keeps_its_own_process_out_too(directory: OpenDirectory) -> None:
    """Two threads of one process cannot both hold it; a second release changes nothing."""
    lock = hold(directory)
    with pytest.raises(locks.LockedError) as caught:
        hold(directory)
    assert caught.value.holder == b"mine"
    lock.release()
    lock.release()
    assert is_free(directory)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_neither_keeps_nor_releases_the_lock(tmp_path: Path) -> None:
    """The child's copy is closed: the parent holds the lock alone, and its death releases it."""
    holds = "\n".join(HOLDER.splitlines()[:5])
    script = f"""
import os
{holds}
if os.fork() == 0:
    lock.release()
    os.kill(os.getppid(), 0)
    print("child", os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent,
        OpenDirectory(str(tmp_path)) as directory,
    ):
        child = int(said(parent).split()[1])
        try:
            assert not is_free(directory)  # the child's release is not the parent's
            parent.kill()
            parent.wait()
            assert is_free(directory)  # although the child lives
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_may_wait_for_its_parents_lock(directory: OpenDirectory) -> None:
    """To the child the parent is another process like any."""
    with hold(directory):
        assert in_child(lambda: is_free(directory)) == "returned False"
    assert in_child(lambda: is_free(directory)) == "returned True"


def test_without_locks_in_the_file_system_it_goes_on_and_says_so(
    directory: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is kept away, and the attribute has it."""
    monkeypatch.setattr(locks, "_try_lock", lambda fd: None)
    with hold(directory) as first, hold(directory) as second:
        assert not first.exclusive
        assert not second.exclusive


def test_a_lock_whose_file_was_removed_is_taken_on_the_new_one(
    directory: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two would hold the locks of two files of one name."""
    try_lock = locks._try_lock

    def removed_first(fd: int) -> bool | None:
        monkeypatch.setattr(locks, "_try_lock", try_lock)
        directory.unlink("x.lock")
        return try_lock(fd)

    monkeypatch.setattr(locks, "_try_lock", removed_first)
    with hold(directory):
        assert directory.read("x.lock") == b"mine"
        assert not is_free(directory)


def test_what_cannot_be_written_is_released(
    directory: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is an error that names the file, and leaves no lock behind."""

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", full)
        with pytest.raises(OSError, match="No space") as caught:
            hold(directory)
    assert caught.value.filename == os.path.join(directory.path, "x.lock")
    assert is_free(directory)


def test_locked_leaves_the_files_content_alone(directory: OpenDirectory) -> None:
    """A lock for a moment may be on a log: nothing in it is touched."""
    (Path(directory.path) / "x.lock").write_bytes(b"a line\n")
    with locks.locked(directory, "x.lock"):
        assert not is_free(directory)
    assert directory.read("x.lock") == b"a line\n"
    assert is_free(directory)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no locks on directories")
def test_a_directory_that_is_shared_is_had_by_nobody_alone(tmp_path: Path) -> None:
    """Those who use it do not see each other, and who would remove it is kept away by each."""
    path = str(tmp_path)
    with OpenDirectory(path) as one, OpenDirectory(path) as two, OpenDirectory(path) as third:
        assert locks.share_directory(one, 0.0)
        assert locks.share_directory(two, 0.0)
        with pytest.raises(locks.LockedError):
            locks.lock_directory(third, 0.0)
        locks.unlock_directory(one)
        with pytest.raises(locks.LockedError):
            locks.lock_directory(third, 0.0)
        locks.unlock_directory(two)
        assert locks.lock_directory(third, 0.0)
        with pytest.raises(locks.LockedError):
            locks.share_directory(one, 0.0)
