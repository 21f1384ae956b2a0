"""`keisei doctor --fix` repairs what is safe to repair, under the run's lock, and never deletes."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionInUseError, SessionManager
from keisei._io import files, locks
from keisei.run import repair
from keisei.run.health import diagnose
from tests.conftest import MakeConfig
from tests.support.runs import Runs, contents, snapshot

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes, FIFOs and links")


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """The root where the tests' configs let runs live."""
    return Runs(tmp_path / "runs", make_config)


@pytest.fixture
def living(runs: Runs) -> Iterator[SessionManager[Any]]:
    """A session that is at work, in this process."""
    with SessionManager(runs.make_config(), run_name="living") as session:
        yield session


def test_a_run_whose_owner_was_killed_has_failed(runs: Runs) -> None:
    """Its record says so, at its last sign of life, its log says why, and a start resumes it."""
    run = runs.killed("r")
    before = runs.record()
    for name, age in (("training.log", 3000), ("session.json", 5000)):
        os.utime(run / name, (time.time() - age,) * 2)
    last = (run / "training.log").stat().st_mtime
    told = runs.doctor("--fix")
    assert told.code == 0
    assert told.states == {"r": "failed"}
    after = runs.record()
    assert after == before | {"status": "failed", "ended_at": after["ended_at"]}
    seen = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(last))
    assert after["ended_at"].startswith(seen)
    start, end = runs.log()
    assert "session started" in start
    assert f"failed at {after['ended_at']}: its owner is gone" in end
    assert f"process {before['owner']['pid']} on host {before['owner']['host']}" in end
    with SessionManager(runs.make_config(), run_name="r") as session:
        assert session.session_id == before["session_id"]
        assert session.get_session_summary()["attempt"] == 2


def test_a_run_elsewhere_is_left_alone_until_its_host_is_said_to_be_gone(runs: Runs) -> None:
    """It needs no attention, is never repaired, and dies with `--gone HOST` alone."""
    run = runs.elsewhere()
    with (run / "training.log").open("ab") as log:
        log.write(b"half a li")
    (run / ".session.json.tmp").write_text("{")
    before = snapshot(runs.root)
    assert runs.doctor("--fix").states == {"r": "elsewhere"}
    assert runs.doctor("--fix", "--gone", "node-8").code == 0
    assert runs.doctor("--gone", "node-7").states == {"r": "died"}
    assert snapshot(runs.root) == before
    assert "--gone node-7" in runs.doctor_text()[1]
    told = runs.doctor("--fix", "--gone", "node-8", "--gone", "node-7")
    assert (told.code, told.states) == (0, {"r": "failed"})
    assert runs.log()[-2] == "half a li"
    assert "on host node-7" in runs.log()[-1]


@POSIX
def test_a_run_whose_owner_lives_is_never_repaired(runs: Runs, living: SessionManager[Any]) -> None:
    """What it may be writing is no damage; a wrong mode is said, and stays."""
    run = Path(living.run_artifact_dir)
    with (run / "training.log").open("ab") as log:
        log.write(b"half a li")
    (run / ".session.json.tmp").write_text("{")
    (run / "effective_config.json").chmod(0o644)
    before = snapshot(runs.root)
    told = runs.doctor("--fix")
    assert told.code == 1
    assert told.findings("living") == [("mode", "effective_config.json", "problem")]
    assert snapshot(runs.root) == before


@pytest.mark.parametrize("name", ["training.log", "evaluation.log"])
def test_a_torn_log_gets_its_newline(runs: Runs, name: str) -> None:
    """And nothing else changes in it."""
    run = runs.completed()
    with (run / name).open("ab") as log:
        log.write(b"epoch 12, loss 0.\xff")
    before = (run / name).read_bytes()
    assert runs.doctor().findings() == [("log", name, "repairable")]
    told = runs.doctor("--fix")
    assert (told.code, len(told.runs["r"]["repairs"])) == (0, 1)
    assert (run / name).read_bytes() == before + b"\n"


def test_temporary_files_are_kept_under_a_free_name(runs: Runs) -> None:
    """Each is renamed, with a number where its name is taken, before a record is written."""
    run = runs.killed("r")
    names = [
        ".session.json.tmp",
        ".effective_config.json.tmp",
        ".effective_config.attempt-1.json.tmp",
    ]
    for number in (1, 2, 3):
        for name in names:
            (run / name).write_text(f"{name} {number}")
        runs.record(status="running")
        assert runs.doctor("--fix").code == 0
    for name in names:
        assert not (run / name).exists()
        for suffix, number in (("leftover", 1), ("leftover-2", 2), ("leftover-3", 3)):
            assert (run / f"{name}.{suffix}").read_text() == f"{name} {number}"


def test_what_an_ended_runs_living_process_may_be_writing_is_no_leftover(runs: Runs) -> None:
    """The trackers of an ended run are recorded a little later: its process must be gone too."""
    run = runs.completed()
    (run / ".session.json.tmp").write_text("{")
    assert runs.doctor("--fix").code == 0
    assert (run / ".session.json.tmp").exists()


def test_a_corrupt_record_is_kept_and_rebuilt_with_the_true_end(runs: Runs) -> None:
    """Id, attempt, times and status come from the log; the old ones are all kept."""
    run = runs.completed()
    runs.completed()
    truth = runs.record()
    torn = ["", "{", '{"session_id": "01']
    for text in torn:
        (run / "session.json").write_text(text)
        assert runs.doctor().findings() == [("session file", "session.json", "repairable")]
        told = runs.doctor("--fix")
        assert (told.code, told.states) == (0, {"r": "completed"})
        rebuilt = runs.record()
        for key in ("session_id", "run_name", "attempt", "status", "ended_at", "paths"):
            assert rebuilt[key] == truth[key], key
        assert rebuilt["owner"]["pid"] == 0
    names = ["session.json.corrupt", "session.json.corrupt-2", "session.json.corrupt-3"]
    assert [(run / name).read_text() for name in names] == torn
    assert sum("session ended" in line for line in runs.log()) == 2
    with SessionManager(runs.make_config(), run_name="r") as session:
        assert session.session_id == truth["session_id"]
        assert session.get_session_summary()["attempt"] == 3


def test_however_a_dead_runs_record_is_damaged_its_id_and_attempt_come_back(runs: Runs) -> None:
    """Cut short or with a flipped bit, at many places: repaired at once, and the old text kept."""
    run = runs.killed("r")
    truth, text = runs.record(), (run / "session.json").read_bytes()
    log = (run / "training.log").read_bytes()
    count = 0
    for place in range(0, len(text), 31):
        flipped = text[:place] + bytes([text[place] ^ 0x80]) + text[place + 1 :]
        for damaged in (text[:place], flipped):
            (run / "session.json").write_bytes(damaged)
            (run / "training.log").write_bytes(log)
            found = diagnose(str(run))
            assert found is not None
            assert found.state == "corrupt"
            fixed = repair.repair(found)
            assert (fixed.state, fixed.needs_attention) == ("failed", False)
            record = runs.record()
            assert (record["session_id"], record["attempt"]) == (truth["session_id"], 1)
            assert damaged in contents(run)
            assert sum("its owner is gone" in line for line in runs.log()) == 1
            count += 1
    print(f"{count} of {count} damaged records rebuilt with id and attempt, each old text kept")
    assert count >= 40


def test_a_corrupt_record_whose_owner_still_stands_there_and_lives_is_left_alone(
    runs: Runs, living: SessionManager[Any]
) -> None:
    """The session writes its record anew when it ends; until then nobody else may have the run."""
    path = Path(living.run_artifact_dir, "session.json")
    path.write_bytes(path.read_bytes()[:-20])
    before = snapshot(runs.root)
    told = runs.doctor("--fix")
    assert (told.code, told.states) == (1, {"living": "corrupt"})
    assert told.findings("living") == [("session file", "session.json", "problem")]
    assert snapshot(runs.root) == before
    living.finalize_session()
    assert runs.doctor().code == 0


def test_a_lost_record_is_rebuilt_where_the_log_has_a_start(runs: Runs) -> None:
    """Without a start line it is another program's directory, or a file that may have been ours."""
    run = runs.completed()
    truth = runs.record()
    (run / "session.json").unlink()
    assert runs.doctor("--fix").states == {"r": "completed"}
    assert runs.record()["session_id"] == truth["session_id"]
    (run / "session.json").unlink()
    (run / "training.log").write_text("epoch 1\n")
    (runs.root / "never" / "models").mkdir(parents=True)
    before = snapshot(runs.root)
    told = runs.doctor("--fix")
    assert (told.code, told.states) == (0, {})
    assert snapshot(runs.root) == before
    (run / "session.json").write_text("{")
    (run / "session.json").chmod(0o600)
    assert runs.doctor("--fix").states == {}
    (run / "metrics.1.journal").write_bytes(b"")  # then it is a run's
    (run / "metrics.1.journal").chmod(0o600)
    before = snapshot(runs.root)
    told = runs.doctor("--fix")
    assert told.code == 1
    assert told.findings() == [("session file", "session.json", "problem")]
    assert snapshot(runs.root) == before


@pytest.mark.parametrize(
    "text", ["{}", "[1, 2]", '{"session": "abc", "cookies": []}', "null", "no JSON", ""]
)
def test_another_programs_directory_is_never_touched_and_needs_no_attention(
    runs: Runs, text: str
) -> None:
    """It may have files of the same names, also a session.json of its own."""
    other = runs.root / "other"
    (other / "models").mkdir(parents=True)
    (other / "session.json").write_text(text)
    (other / ".session.json.tmp").write_text(text)
    (other / "effective_config.json").write_text("not JSON")
    (other / "training.log").write_text("[2026-01-31] session started: mine\nepoch 1, no newline")
    other.chmod(0o755)
    before = snapshot(runs.root)
    told = runs.doctor("--fix")
    assert (told.code, told.states) == (0, {})
    assert snapshot(runs.root) == before


@POSIX
def test_wrong_modes_are_set_right(runs: Runs) -> None:
    """Files 0600, the directory and its models 0700; what is the user's own stays as it is."""
    run = runs.completed()
    runs.completed()  # which keeps the first attempt's config
    mine = run / "models" / "mine.bin"
    mine.write_bytes(b"")
    right = {path: path.stat().st_mode for path in [run, *run.rglob("*")]}
    assert len(right) == 8
    for path in right:
        path.chmod(0o755 if path.is_dir() else 0o644)
    mine.chmod(0o640)
    told = runs.doctor()
    assert [kind for kind, _, _ in told.findings()] == ["mode"] * 7
    assert runs.doctor("--fix").code == 0
    right[mine] = stat.S_IFREG | 0o640
    assert {path: path.stat().st_mode for path in right} == right


def test_a_start_between_the_look_and_the_lock_keeps_its_run(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the lock the doctor reads again, and leaves alone what has an owner by then."""
    runs.killed("r")
    locked, session = locks.locked, SessionManager(runs.make_config(), run_name="r")

    def after_a_start(directory: files.OpenDirectory, name: str) -> Any:
        monkeypatch.setattr(locks, "locked", locked)
        session.setup_directories()
        return locked(directory, name)

    monkeypatch.setattr(locks, "locked", after_a_start)
    told = runs.doctor("--fix")
    assert told.states == {"r": "running"}
    assert told.runs["r"]["repairs"] == []
    assert (runs.record()["status"], runs.record()["attempt"]) == ("running", 2)
    session.finalize_session()


def test_starts_and_repairs_at_the_same_moment_leave_each_run_one_truth(runs: Runs) -> None:
    """A start always gets the dead run; the doctor has ended the dead attempt, or done nothing."""
    runs.killed("r")
    rounds, repaired = 25, 0
    for attempt in range(2, rounds + 2):
        barrier = threading.Barrier(2)
        session = SessionManager(runs.make_config(), run_name="r")

        def start(session: SessionManager[Any] = session, to: threading.Barrier = barrier) -> None:
            to.wait()
            session.setup_directories()
            session.log_session_start()

        starting = threading.Thread(target=start)
        starting.start()
        barrier.wait()
        found = diagnose(str(runs.root / "r"))
        assert found is not None
        fixed = repair.repair(found)
        starting.join()
        assert fixed.state in ("failed", "running")
        repaired += fixed.state == "failed"
        record = runs.record()
        assert (record["status"], record["attempt"]) == ("running", attempt)
        lines = runs.log()
        assert f"attempt {attempt}" in lines[-1]
        assert sum("its owner is gone" in line for line in lines) == repaired
        session.finalize_session()
        owner = record["owner"] | {"process_start": "long ago"}
        runs.record(status="running", owner=owner)
    print(f"{rounds} starts against {rounds} repairs: {repaired} repairs came first, none was late")
    with (
        SessionManager(runs.make_config(), run_name="r") as owned,
        pytest.raises(SessionInUseError),
    ):
        assert runs.doctor("--fix").states == {"r": "running"}
        SessionManager(runs.make_config(), run_name=owned.run_name).setup_directories()


def test_a_second_repair_changes_nothing_and_none_ever_deletes(runs: Runs) -> None:
    """All damage at once: what stood there is still there, and the second time all is quiet."""
    runs.killed("dead", "torn", "lost", "bare")
    for name in ("dead", "torn", "lost", "bare"):
        run = runs.root / name
        for log in ("training.log", "evaluation.log"):
            with (run / log).open("ab") as file:
                file.write(f"{name}: half a li".encode())
        for temporary in (".session.json.tmp", ".effective_config.json.tmp"):
            (run / temporary).write_text(f"{name}{temporary}")
            (run / f"{temporary}.leftover").write_text(f"{name}{temporary} before")
        (run / "models" / "weights.bin").write_text(name)
        if os.name == "posix":
            (run / "training.log").chmod(0o666)
            run.chmod(0o755)
    (runs.root / "torn" / "session.json").write_text("{")
    (runs.root / "torn" / "session.json.corrupt").write_text("{ before")
    (runs.root / "lost" / "session.json").unlink()
    (runs.root / "bare" / "session.json").unlink()
    (runs.root / "bare" / "training.log").write_text("no start line")
    dead = runs.record("dead")
    before = contents(runs.root) - {(runs.root / "dead" / "session.json").read_bytes()}

    told = runs.doctor("--fix")
    repaired = dict.fromkeys(("dead", "torn", "lost"), "failed")
    assert told.states == repaired  # without a start line, `bare` is another program's
    assert [name for name, run in told.runs.items() if run["needs_attention"]] == []
    after = contents(runs.root)
    assert [text for text in before if not any(now.startswith(text) for now in after)] == []
    changed = runs.record("dead")
    assert {key for key in dead if dead[key] != changed[key]} == {"status", "ended_at"}

    quiet = snapshot(runs.root)
    again = runs.doctor("--fix")
    assert [run["repairs"] for run in again.runs.values()] == [[], [], []]
    assert snapshot(runs.root) == quiet
    assert runs.doctor("dead", "torn", "lost").code == 0
    repairs = sum(len(run["repairs"]) for run in told.runs.values())
    print(f"{repairs} repairs of 3 runs; {len(before)} of {len(before)} contents still there")
    assert repairs == 21 if os.name == "posix" else 15


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_repair_that_fails_is_said(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The old record is as it was, the status is not 0, and the next time it succeeds."""
    run = runs.killed("r")
    before = (run / "session.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", fail)
        told = runs.doctor("--fix")
    assert (told.code, told.states) == (1, {"r": "died"})
    assert told.findings() == [("owner", "", "repairable"), ("repair", "", "problem")]
    assert os.strerror(code) in told.runs["r"]["findings"][1]["text"]
    assert (run / "session.json").read_bytes() == before
    assert runs.doctor("--fix").code == 0
