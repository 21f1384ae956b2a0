"""The record is whole or not there: on a disk that fails, and for a program that is killed."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest

from keisei import AsyncSessionManager, ProvenanceError
from keisei._io.directories import OpenDirectory
from keisei.provenance.reading import read_snapshot
from keisei.provenance.restore import restore_code
from keisei.provenance.snapshot import Seen, Task, look, write
from tests.conftest import MakeConfig
from tests.support.dirty_trees import repository, tree_of
from tests.support.file_faults import ANY, Fault, FileFaults
from tests.support.threads import off_loop, still_there


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with changes."""
    repo = repository(tmp_path / "repo", {"a.txt": "one\n"})
    (repo / "a.txt").write_text("two\n")
    (repo / "new.txt").write_text("new\n")
    return repo


@pytest.fixture
def task(repo: Path) -> Task:
    """What is to be recorded of a run that is started in the repository."""
    return Task("r", str(repo), 1, (), 30.0, 2**20, 2**20, ())


@pytest.fixture
def seen(task: Task) -> Seen:
    """What is seen there."""
    return look(task, threading.Event())


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """Yield new directories, each of a run."""
    return (_made(tmp_path / f"run-{number}") for number in range(1000))


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def check_whole_or_absent(run: Path, task: Task, seen: Seen, repo: Path) -> None:
    """Check that a record that is found restores the tree, and that the next one is written."""
    for again in (False, True):
        if again:
            with OpenDirectory(str(run)) as directory:
                write(task, seen, directory)
            assert not list(run.glob("*.tmp"))
        elif read_snapshot(str(run)) is None:
            continue
        target = run / f"restored-{again}"
        assert restore_code(str(run), str(target), str(repo)).differs == []
        assert tree_of(target) == tree_of(repo)


@pytest.mark.requirement("PROV-1")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_record_survives_a_kill_before_each_call(
    runs: Iterator[Path], task: Task, seen: Seen, repo: Path
) -> None:
    """What is there is whole, and the next start writes its own without help."""
    for number in range(1, 1000):
        run = next(runs)
        pid = os.fork()
        if pid == 0:
            FileFaults(die_before=number).install()
            with OpenDirectory(str(run)) as directory:
                write(task, seen, directory)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        check_whole_or_absent(run, task, seen, repo)
        if not os.WIFSIGNALED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    assert number > 10


def test_a_disk_that_fails_leaves_nothing_half(
    runs: Iterator[Path], task: Task, seen: Seen, repo: Path
) -> None:
    """Whichever call fails: an `OSError` at worst, no temporary file, a record or none."""
    for error in (errno.ENOSPC, errno.EROFS):
        for number in range(1, 1000):
            run, faults = next(runs), FileFaults(Fault(ANY, number, error))
            with pytest.MonkeyPatch.context() as patch:
                faults.install(partial(patch.setattr, raising=False))
                with suppress(OSError), OpenDirectory(str(run)) as directory:
                    write(task, seen, directory)
            if not faults.injected:
                break
            if faults.injected[0].kind != "unlink":
                assert not list(run.glob(".*"))
            check_whole_or_absent(run, task, seen, repo)
        assert number > 10


def test_a_full_disk_has_no_record(tiny_disk: Path, task: Task, seen: Seen) -> None:
    """Nothing of it is left there."""
    filling = tiny_disk / "filling"
    with pytest.raises(OSError, match="No space"), filling.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with (
        OpenDirectory(str(tiny_disk)) as directory,
        pytest.raises(OSError, match="No space") as caught,
    ):
        write(task, seen, directory)
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tiny_disk.iterdir()] == ["filling"]


@pytest.mark.parametrize("left", [b"", b"other", None])
def test_an_archive_that_is_not_the_recorded_one_is_refused(
    runs: Iterator[Path], task: Task, seen: Seen, repo: Path, left: bytes | None
) -> None:
    """After a loss of power it may be empty, or have gone: no tree is restored without it."""
    run = next(runs)
    with OpenDirectory(str(run)) as directory:
        write(task, seen, directory)
    archive = run / "code.1.tar.gz"
    archive.unlink()
    if left is not None:
        archive.write_bytes(left)
    with pytest.raises(ProvenanceError, match=r"code\.1\.tar\.gz is refused.*has gone, or is not"):
        restore_code(str(run), str(run / "restored"), str(repo))
    assert not (run / "restored").exists()


async def test_a_cancelled_entry_begins_nothing(make_config: MakeConfig) -> None:
    """Neither a thread nor a record is left of it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with AsyncSessionManager(make_config()):
            pytest.fail("it is cancelled")
    assert off_loop(still_there) == []
