"""What a session says and saves where its directory or files are taken from under it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from keisei import AppConfig, JournalError, SessionManager
from keisei._io import directories
from keisei._io.backoff import may_pass
from keisei.journal.reader import Row, read_run
from keisei.run import find
from keisei.session import ending
from keisei.testing import MemoryTracker
from keisei.trackers import cursor
from tests.conftest import MakeConfig
from tests.support.session_files import record_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows keeps what is open")


def steps(directory: str | os.PathLike[str]) -> list[int | None]:
    """Return the steps that a run's journal has."""
    return list(read_run(directory).columns("x")[0])


def log(session: SessionManager[Any], *numbers: int) -> None:
    """Log a row for each number."""
    for number in numbers:
        session.log_metrics({"x": float(number), "a": 1.0}, step=number)


@pytest.mark.parametrize("how", ["moved", "replaced by a link", "replaced by a directory"])
def test_a_run_that_is_moved_is_followed(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Rows, lines and the end go where its directory is; where that is, is said once."""
    with SessionManager(make_config(), run_name="r") as session:
        log(session, 0)
        session.flush()
        directory, target = Path(session.run_artifact_dir), tmp_path / "elsewhere"
        directory.rename(target)
        if how == "replaced by a link":
            directory.symlink_to(target)
        elif how == "replaced by a directory":
            directory.mkdir()
        for number in range(1, 20):
            log(session, number)
            session.flush()
        session.save_effective_config()
    assert steps(target) == list(range(20))
    assert '"completed"' in (target / "session.json").read_text()
    assert "completed" in (target / "training.log").read_text().splitlines()[-1]
    said = [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
    assert len(said) == 1
    assert f"was moved to '{target}'" in said[0]
    assert how != "replaced by a directory" or list(directory.iterdir()) == []
    assert how != "moved" or not directory.exists()


@pytest.mark.parametrize("how", ["moved", "replaced by a directory"])
def test_a_tracker_follows_a_run_that_is_moved(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """It gets all rows and the end, its cursor goes along, and what stands there now is left."""
    tracker = MemoryTracker()
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging(tracker)
        log(session, 0)
        session.flush()
        root, target = Path(session.run_artifact_dir).parent, tmp_path / "elsewhere"
        root.rename(target)
        if how == "replaced by a directory":
            (root / "r").mkdir(parents=True)
        log(session, *range(1, 20))
    (run,) = tracker.runs
    assert [record.step for record in run.records if isinstance(record, Row)] == list(range(20))
    assert run.ends == ["completed"]
    assert cursor.load(str(target / "r"), tracker.name).known.state == "finished"
    assert (
        json.loads((target / "r" / "session.json").read_text())["trackers"]["memory"]["behind"] == 0
    )
    assert "cannot be" not in caplog.text
    assert how == "moved" or list((root / "r").iterdir()) == []


def test_a_run_that_is_moved_is_ended_at_the_exit(make_config: MakeConfig, tmp_path: Path) -> None:
    """A program that forgets it leaves no run that lives for ever."""
    session = SessionManager(make_config(), run_name="r")
    session.setup_directories()
    Path(session.run_artifact_dir).rename(tmp_path / "elsewhere")
    ending._end_forgotten()
    assert '"completed"' in (tmp_path / "elsewhere" / "session.json").read_text()
    session.finalize_session()


def test_a_run_that_is_removed_is_begun_again_and_what_is_lost_is_said(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """`flush` raises once, with how many rows are gone; later ones are read, names and all."""
    with SessionManager(make_config(), run_name="r") as session:
        log(session, *range(5))
        session.flush()
        shutil.rmtree(session.run_artifact_dir)
        log(session, 5)
        with pytest.raises(JournalError, match=r"removed .* 5 rows and events with it"):
            session.flush()
        log(session, 6)
        session.flush()
        counts = session.get_session_summary()["journal"]
        assert (counts["written"], counts["dropped"], counts["queued"]) == (2, 5, 0)
    assert steps(session.run_artifact_dir) == [5, 6]
    assert record_of(session)["status"] == "completed"
    for what in ("what it held is lost", "5 rows and events with it", "it is written again"):
        assert what in caplog.text


@pytest.mark.parametrize("how", ["removed", "replaced", "replaced by a word", "cut"])
@pytest.mark.parametrize("more", [True, False], ids=["more rows", "no more rows"])
@pytest.mark.parametrize("durability", ["buffered", "fsync"])
def test_a_journal_that_is_lost_is_noticed_by_flush_and_begun_again(
    make_config: MakeConfig, how: str, more: bool, durability: str
) -> None:
    """Also where nothing was logged since; the names of its rows are written again."""
    with SessionManager(make_config(journal={"durability": durability}), run_name="r") as session:
        log(session, 0, 1)
        session.flush()
        path = Path(session.run_artifact_dir, "metrics.1.journal")
        if how == "cut":
            os.truncate(path, 0)
        else:
            path.unlink()
            if how.startswith("replaced"):
                path.write_bytes(bytes(10_000) if how == "replaced" else b"word")
        if more:
            log(session, 2)
        with pytest.raises(JournalError, match=f"{how.split()[0]} .* 2 rows and events"):
            session.flush()
        log(session, 3)
        session.flush()
    assert steps(session.run_artifact_dir) == ([2, 3] if more else [3])
    other = path.with_name("metrics.1.journal.other")
    assert how.startswith("replaced") == other.exists()  # it may be somebody's


def test_a_journal_that_is_lost_is_said_at_the_end_too(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has flushed since: the end looks whether what was written still stands there."""
    with SessionManager(make_config(), run_name="r") as session:
        log(session, 0, 1)
        session.flush()
        Path(session.run_artifact_dir, "metrics.1.journal").unlink()
    assert "2 rows and events with it" in caplog.text
    counts = session.get_session_summary()["journal"]
    assert (counts["written"], counts["dropped"]) == (0, 2)


def test_a_copy_in_the_journals_place_is_the_journal(make_config: MakeConfig) -> None:
    """As some programs replace a file that they only mean to touch."""
    with SessionManager(make_config(), run_name="r") as session:
        log(session, 0, 1)
        session.flush()
        path = Path(session.run_artifact_dir, "metrics.1.journal")
        shutil.copy(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").rename(path)
        log(session, 2)
        session.flush()
    assert steps(session.run_artifact_dir) == [0, 1, 2]


def test_a_session_holds_one_descriptor(make_config: MakeConfig) -> None:
    """Its directory's, also while it logs; none after its end."""
    with SessionManager(make_config(), run_name="warm"):
        pass
    before = len(os.listdir("/dev/fd"))
    sessions = [SessionManager(make_config(), run_name=f"r{number}") for number in range(20)]
    for session in sessions:
        session.setup_directories()
        log(session, 0)
        session.flush()
    assert len(os.listdir("/dev/fd")) == before + 20
    for session in sessions:
        session.finalize_session()
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_that_cannot_sync_directories_is_said_once(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: int,
) -> None:
    """The runs go on; an error that a disk has is one as before."""
    fsync = os.fsync

    def sync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(error, os.strerror(error))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(directories, "_unsynced", {})
    for name in ("a", "b"):
        config = make_config(journal={"durability": "fsync"})
        with SessionManager(config, run_name=name) as session:
            log(session, 0)
            session.flush()
        assert record_of(session)["status"] == "completed"
    assert [r.getMessage().count("cannot sync a directory") for r in caplog.records].count(1) == 1
    caplog.clear()
    directories._unsynced.clear()
    directories.leave_unsaid(str(config.logging.log_dir))  # as a tracker's process does
    with SessionManager(config, run_name="c"):
        pass
    assert "cannot sync" not in caplog.text


@pytest.mark.parametrize("where", ["config", "environment", "models", "working directory"])
def test_a_path_that_is_no_utf8_is_a_path_like_any_other(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The files of JSON show its bytes escaped."""
    place = os.path.join(os.fsencode(tmp_path), b"caf\xe9 \xff")
    os.mkdir(place)
    odd = os.fsdecode(place)
    logging: dict[str, Any] = {"config": {"log_dir": odd}, "models": {"model_dir": odd}}.get(
        where, {"log_dir": None}
    )
    if where == "environment":
        monkeypatch.setenv("KEISEI_LOG_DIR", odd)
    elif where == "working directory":
        monkeypatch.chdir(odd)
    with SessionManager(make_config(logging=logging), run_name="r") as session:
        log(session, 0)
        lines: list[str] = []
        session.log_session_info(lines.append)
    assert steps(session.run_artifact_dir) == [0]
    assert any(odd in path for path in (session.run_artifact_dir, session.model_dir))
    assert r"caf\xe9 \xff" in str(record_of(session)["paths"]["model_dir"])
    text = Path(session.run_artifact_dir, "effective_config.json").read_bytes()
    assert AppConfig.model_validate_json(text).logging.if_exists == "resume"


def fill(disk: Path) -> Path:
    """Fill a disk, and return the file that does it."""
    filler = disk / "filler"
    with filler.open("wb", 0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filler
    raise AssertionError


def test_a_disk_that_is_full_at_the_end_and_free_a_little_later_loses_nothing(
    make_config: MakeConfig, tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The end waits for it, says so, and then records rows, lines and itself."""
    config = make_config(logging={"log_dir": str(tiny_disk)})
    session = SessionManager(config, run_name="r")
    session.setup_directories()
    session.log_session_start()
    filler = fill(tiny_disk)
    log(session, *range(2000))
    freed = threading.Timer(0.7, filler.unlink)
    freed.start()
    session.finalize_session()
    freed.join()
    assert steps(session.run_artifact_dir) == list(range(2000))
    assert record_of(session)["status"] == "completed"
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("tries again for" in line for line in said)


def test_a_disk_that_stays_full_is_given_up_when_the_time_is_over(
    make_config: MakeConfig, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, and not long after."""
    monkeypatch.setattr(ending, "JOURNAL_TIMEOUT", 0.5)
    session = SessionManager(make_config(logging={"log_dir": str(tiny_disk)}), run_name="r")
    session.setup_directories()
    filler = fill(tiny_disk)
    log(session, *range(2000))
    assert session.finalize_session() == "completed"
    assert record_of(session)["status"] == "running"
    filler.unlink()
    with SessionManager(make_config(logging={"log_dir": str(tiny_disk)}), run_name="r") as again:
        assert again.get_session_summary()["attempt"] == 2


def test_what_does_not_pass_by_itself_is_not_tried_again(make_config: MakeConfig) -> None:
    """A link in the way of the end line is an error at once."""
    assert may_pass(OSError(errno.ENOSPC, "full"))
    session = SessionManager(make_config(), run_name="r")
    session.setup_directories()
    log_file = Path(session.log_file_path)
    log_file.unlink()
    log_file.symlink_to("elsewhere")
    session.finalize_session()
    assert record_of(session)["status"] == "completed"


def test_the_last_sign_of_life_is_the_latest_of_all_files(make_config: MakeConfig) -> None:
    """The journal's and the logs' too; not a tracker's cursor, which its host process writes."""
    with SessionManager(make_config(), run_name="r") as session:
        log(session, 0)
    run = Path(session.run_artifact_dir)
    (run / "tracker.x.json").write_text("{}")
    (run / "evaluation.log").write_text("{}\n")
    for latest in ("metrics.1.journal", "evaluation.log", "training.log", "session.json"):
        for path in run.iterdir():
            os.utime(path, (1000, 1000))
        os.utime(run / "tracker.x.json", (9000, 9000))
        os.utime(run / latest, (5000, 5000))
        with directories.OpenDirectory(str(run)) as directory:
            assert find.last_sign(directory) == 5000, latest


@pytest.mark.parametrize("how", ["link", "directory", "pipe"])
def test_a_session_file_that_was_replaced_by_no_file_is_written_again(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """What stands in its place is set aside, and nothing is written through a link."""
    with SessionManager(make_config(), run_name="r") as session:
        path = Path(session.run_artifact_dir, "session.json")
        path.unlink()
        if how == "link":
            path.symlink_to(tmp_path / "target")
        elif how == "directory":
            path.mkdir()
            (path / "theirs").write_text("")
        else:
            os.mkfifo(path)
    assert record_of(session)["status"] == "completed"
    assert "was replaced by what is no file while its owner lives" in caplog.text
    assert os.path.lexists(path.with_name("session.json.other"))
    assert not (tmp_path / "target").exists()


def test_an_end_that_is_only_in_the_session_file_is_said_to_be_there(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Its log cannot take the end line; the run is recorded as completed all the same."""
    with SessionManager(make_config(), run_name="r") as session:
        log_file = Path(session.log_file_path)
        log_file.unlink()
        log_file.mkdir()
    assert record_of(session)["status"] == "completed"
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert said.startswith("the end of run r is recorded, but not in its training log: ")
    assert "None" not in said
