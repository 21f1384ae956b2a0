"""`keisei doctor` tells how runs are, repairs what is safe to repair, and never deletes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import SessionInUseError, SessionManager
from keisei._io import files, locks
from keisei.cli import doctor as _doctor  # noqa: F401 - registers the command
from keisei.cli.program import app
from keisei.training import doctor
from keisei.training.diagnosis import diagnose
from tests.conftest import MakeConfig

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes, FIFOs and links")

VICTIM = """
import sys
from keisei import AppConfig, SessionManager
for name in sys.argv[1:]:
    session = SessionManager(AppConfig(), run_name=name)
    session.__enter__()
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class Told:
    """What `keisei doctor --json` said."""

    code: int
    document: dict[str, Any]

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """Each run by its name."""
        return {run["run"]: run for run in self.document["runs"]}

    @property
    def states(self) -> dict[str, str]:
        """The state of each run."""
        return {name: run["state"] for name, run in self.runs.items()}

    def findings(self, name: str = "r") -> list[tuple[str, str, str]]:
        """What was found of a run: kind, file and weight."""
        found = self.runs[name]["findings"]
        return [(finding["kind"], finding["file"], finding["weight"]) for finding in found]


@dataclass
class Ward:
    """A root with runs in whatever condition."""

    root: Path
    make_config: MakeConfig

    def completed(self, name: str = "r") -> Path:
        """Make a run that has ended."""
        with SessionManager(self.make_config(), run_name=name) as session:
            pass
        return Path(session.run_artifact_dir)

    def killed(self, *names: str) -> Path:
        """Make runs whose process is killed; gives the first one's directory."""
        with subprocess.Popen(
            [sys.executable, "-c", VICTIM, *names],
            env={**os.environ, "KEISEI_LOG_DIR": str(self.root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"ready\n"
            victim.kill()
        return self.root / names[0]

    def record(self, name: str = "r", **changes: Any) -> dict[str, Any]:
        """Read a run's record, after changing it where there is something to change."""
        path = self.root / name / "session.json"
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if changes:
            record |= changes
            path.write_text(json.dumps(record), encoding="utf-8")
        return record

    def elsewhere(self, name: str = "r", host: str = "node-7", **owner: Any) -> Path:
        """Make a run that runs on another host, as far as its record tells."""
        path = self.completed(name)
        owner = {"host": host, "pid": os.getpid(), "process_start": "x"} | owner
        self.record(name, status="running", ended_at=None, owner=owner)
        return path

    def log(self, name: str = "r") -> list[str]:
        """Give the lines of a run's training log."""
        text = (self.root / name / "training.log").read_text(encoding="utf-8")
        assert text.endswith("\n")
        return text.splitlines()

    def doctor(self, *arguments: str) -> Told:
        """Ask the doctor."""
        done = CliRunner().invoke(app, ["doctor", "--root", str(self.root), "--json", *arguments])
        assert done.exit_code in (0, 1), done.exception
        return Told(done.exit_code, json.loads(done.stdout))

    def said(self, *arguments: str) -> tuple[int, str, str]:
        """Ask for words: gives the exit status and what was printed, and said as an error."""
        done = CliRunner().invoke(app, ["doctor", "--root", str(self.root), *arguments])
        return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def ward(tmp_path: Path, make_config: MakeConfig) -> Ward:
    """The root where the tests' configs let runs live."""
    return Ward(tmp_path / "runs", make_config)


@pytest.fixture
def living(ward: Ward) -> Iterator[SessionManager[Any]]:
    """A session that is at work, in this process."""
    with SessionManager(ward.make_config(), run_name="living") as session:
        yield session


def snapshot(root: Path) -> dict[str, Any]:
    """Tell everything that a change would change: names, contents, modes and times."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        told = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(told.st_mode) else None
        found[str(path.relative_to(root))] = (content, told.st_mode, told.st_mtime_ns, told.st_ino)
    return found


def contents(root: Path) -> set[bytes]:
    """Give what stands in the files below a directory."""
    return {path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_each_run_is_in_its_state_and_what_is_no_run_is_passed_over(
    ward: Ward, living: SessionManager[Any]
) -> None:
    """Running, died, elsewhere, each end, corrupt and without a record; nothing is touched."""
    ward.killed("dead")
    ward.elsewhere("far")
    for status in ("completed", "failed", "cancelled", "preempted"):
        ward.completed(status)
        ward.record(status, status=status)
    (ward.completed("torn") / "session.json").write_text('{"x')
    for sign in ("training.log", "effective_config.json"):
        (ward.root / f"with {sign}").mkdir()
        (ward.root / f"with {sign}" / sign).write_text("{}")
    (ward.root / "with models" / "models").mkdir(parents=True)
    (ward.root / "empty").mkdir()
    (ward.root / "other" / "deeper" / "models").mkdir(parents=True)
    (ward.root / "file").write_text("")
    if os.name != "nt":
        (ward.root / "latest").symlink_to(ward.root / "dead")
        (ward.root / "dangling").symlink_to(ward.root / "nowhere")
    before = snapshot(ward.root)
    told = ward.doctor()
    assert told.states == {
        "living": "running",
        "dead": "died",
        "far": "elsewhere",
        "completed": "completed",
        "failed": "failed",
        "cancelled": "cancelled",
        "preempted": "preempted",
        "torn": "corrupt",
        "with training.log": "no record",
        "with effective_config.json": "no record",
        "with models": "no record",
    }
    assert told.code == 1
    needy = {name for name, run in told.runs.items() if run["needs_attention"]}
    assert needy == {"dead", "torn", *(name for name in told.states if name.startswith("with "))}
    assert told.document["need_attention"] == len(needy)
    assert told.runs["living"]["owner"]["pid"] == os.getpid()
    assert snapshot(ward.root) == before
    assert ward.doctor("living", "far", "completed", "failed").code == 0


def test_a_run_whose_owner_was_killed_has_failed(ward: Ward) -> None:
    """Its record says so, at its last sign of life, its log says why, and a start resumes it."""
    run = ward.killed("r")
    before = ward.record()
    for name, age in (("training.log", 3000), ("session.json", 5000)):
        os.utime(run / name, (time.time() - age,) * 2)
    last = (run / "training.log").stat().st_mtime
    told = ward.doctor("--fix")
    assert told.code == 0
    assert told.states == {"r": "failed"}
    after = ward.record()
    assert after == before | {"status": "failed", "ended_at": after["ended_at"]}
    seen = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(last))
    assert after["ended_at"].startswith(seen)
    start, end = ward.log()
    assert "session started" in start
    assert f"failed at {after['ended_at']}: its owner is gone" in end
    assert f"process {before['owner']['pid']} on host {before['owner']['host']}" in end
    with SessionManager(ward.make_config(), run_name="r") as session:
        assert session.session_id == before["session_id"]
        assert session.get_session_summary()["attempt"] == 2


def test_a_run_elsewhere_is_left_alone_until_its_host_is_said_to_be_gone(ward: Ward) -> None:
    """It needs no attention, is never repaired, and dies with `--gone HOST` alone."""
    run = ward.elsewhere()
    with (run / "training.log").open("ab") as log:
        log.write(b"half a li")
    (run / ".session.json.tmp").write_text("{")
    before = snapshot(ward.root)
    assert ward.doctor("--fix").states == {"r": "elsewhere"}
    assert ward.doctor("--fix", "--gone", "node-8").code == 0
    assert ward.doctor("--gone", "node-7").states == {"r": "died"}
    assert snapshot(ward.root) == before
    assert "--gone node-7" in ward.said()[1]
    told = ward.doctor("--fix", "--gone", "node-8", "--gone", "node-7")
    assert (told.code, told.states) == (0, {"r": "failed"})
    assert ward.log()[-2] == "half a li"
    assert "on host node-7" in ward.log()[-1]


def test_an_owner_whose_number_another_process_has_by_now_is_gone(ward: Ward) -> None:
    """A process is known by its number and by when it started."""
    ward.elsewhere(host=socket.gethostname(), process_start="long ago")
    assert ward.doctor().states == {"r": "died"}
    assert ward.doctor("--fix").states == {"r": "failed"}


def test_this_host_is_not_gone(ward: Ward, living: SessionManager[Any]) -> None:
    """Whoever says so is told, and nothing is done."""
    code, _, error = ward.said("--fix", "--gone", socket.gethostname())
    assert code == 1
    assert "is this host" in error
    assert ward.record("living")["status"] == "running"


@POSIX
def test_a_run_whose_owner_lives_is_never_repaired(ward: Ward, living: SessionManager[Any]) -> None:
    """What it may be writing is no damage; a wrong mode is said, and stays."""
    run = Path(living.run_artifact_dir)
    with (run / "training.log").open("ab") as log:
        log.write(b"half a li")
    (run / ".session.json.tmp").write_text("{")
    (run / "effective_config.json").chmod(0o644)
    before = snapshot(ward.root)
    told = ward.doctor("--fix")
    assert told.code == 1
    assert told.findings("living") == [("mode", "effective_config.json", "problem")]
    assert snapshot(ward.root) == before


@pytest.mark.parametrize("name", ["training.log", "evaluation.log"])
def test_a_torn_log_gets_its_newline(ward: Ward, name: str) -> None:
    """And nothing else changes in it."""
    run = ward.completed()
    with (run / name).open("ab") as log:
        log.write(b"epoch 12, loss 0.\xff")
    before = (run / name).read_bytes()
    assert ward.doctor().findings() == [("log", name, "repairable")]
    told = ward.doctor("--fix")
    assert (told.code, len(told.runs["r"]["repairs"])) == (0, 1)
    assert (run / name).read_bytes() == before + b"\n"


def test_temporary_files_are_kept_under_a_free_name(ward: Ward) -> None:
    """Each is renamed, with a number where its name is taken, before a record is written."""
    run = ward.killed("r")
    names = [
        ".session.json.tmp",
        ".effective_config.json.tmp",
        ".effective_config.attempt-1.json.tmp",
    ]
    for number in (1, 2, 3):
        for name in names:
            (run / name).write_text(f"{name} {number}")
        ward.record(status="running")
        assert ward.doctor("--fix").code == 0
    for name in names:
        assert not (run / name).exists()
        for suffix, number in (("leftover", 1), ("leftover-2", 2), ("leftover-3", 3)):
            assert (run / f"{name}.{suffix}").read_text() == f"{name} {number}"


def test_what_an_ended_runs_living_process_may_be_writing_is_no_leftover(ward: Ward) -> None:
    """The trackers of an ended run are recorded a little later: its process must be gone too."""
    run = ward.completed()
    (run / ".session.json.tmp").write_text("{")
    assert ward.doctor("--fix").code == 0
    assert (run / ".session.json.tmp").exists()


def test_a_corrupt_record_is_kept_and_rebuilt_with_the_true_end(ward: Ward) -> None:
    """Id, attempt, times and status come from the log; the old ones are all kept."""
    run = ward.completed()
    ward.completed()
    truth = ward.record()
    torn = ["", "{", '{"session_id": "01']
    for text in torn:
        (run / "session.json").write_text(text)
        assert ward.doctor().findings() == [("record", "session.json", "repairable")]
        told = ward.doctor("--fix")
        assert (told.code, told.states) == (0, {"r": "completed"})
        rebuilt = ward.record()
        for key in ("session_id", "run_name", "attempt", "status", "ended_at", "paths"):
            assert rebuilt[key] == truth[key], key
        assert rebuilt["owner"]["pid"] == 0
    names = ["session.json.corrupt", "session.json.corrupt-2", "session.json.corrupt-3"]
    assert [(run / name).read_text() for name in names] == torn
    assert sum("session ended" in line for line in ward.log()) == 2
    with SessionManager(ward.make_config(), run_name="r") as session:
        assert session.session_id == truth["session_id"]
        assert session.get_session_summary()["attempt"] == 3


def test_however_a_dead_runs_record_is_damaged_its_id_and_attempt_come_back(ward: Ward) -> None:
    """Cut short or with a flipped bit, at many places: repaired at once, and the old text kept."""
    run = ward.killed("r")
    truth, text = ward.record(), (run / "session.json").read_bytes()
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
            fixed = doctor.repair(found)
            assert (fixed.state, fixed.needs_attention) == ("failed", False)
            record = ward.record()
            assert (record["session_id"], record["attempt"]) == (truth["session_id"], 1)
            assert damaged in contents(run)
            assert sum("its owner is gone" in line for line in ward.log()) == 1
            count += 1
    print(f"{count} of {count} damaged records rebuilt with id and attempt, each old text kept")
    assert count >= 40


def test_a_corrupt_record_whose_owner_still_stands_there_and_lives_is_left_alone(
    ward: Ward, living: SessionManager[Any]
) -> None:
    """The session writes its record anew when it ends; until then nobody else may have the run."""
    path = Path(living.run_artifact_dir, "session.json")
    path.write_bytes(path.read_bytes()[:-20])
    before = snapshot(ward.root)
    told = ward.doctor("--fix")
    assert (told.code, told.states) == (1, {"living": "corrupt"})
    assert told.findings("living") == [("record", "session.json", "problem")]
    assert snapshot(ward.root) == before
    living.finalize_session()
    assert ward.doctor().code == 0


def test_a_lost_record_is_rebuilt_where_the_log_has_a_start(ward: Ward) -> None:
    """Without a start line it is only said, and nothing changes."""
    run = ward.completed()
    truth = ward.record()
    (run / "session.json").unlink()
    assert ward.doctor("--fix").states == {"r": "completed"}
    assert ward.record()["session_id"] == truth["session_id"]
    (run / "session.json").unlink()
    (run / "training.log").write_text("epoch 1\n")
    (ward.root / "never" / "models").mkdir(parents=True)
    for damage in (None, "{"):
        if damage is not None:
            (run / "session.json").write_text(damage)
            (run / "session.json").chmod(0o600)
        before = snapshot(ward.root)
        told = ward.doctor("--fix")
        assert told.code == 1
        assert told.findings() == [("record", "session.json", "problem")]
        assert told.findings("never") == [("record", "session.json", "problem")]
        assert snapshot(ward.root) == before


@POSIX
def test_wrong_modes_are_set_right(ward: Ward) -> None:
    """Files 0600, the directory and its models 0700; what is the user's own stays as it is."""
    run = ward.completed()
    ward.completed()  # which keeps the first attempt's config
    mine = run / "models" / "mine.bin"
    mine.write_bytes(b"")
    right = {path: path.stat().st_mode for path in [run, *run.rglob("*")]}
    assert len(right) == 8
    for path in right:
        path.chmod(0o755 if path.is_dir() else 0o644)
    mine.chmod(0o640)
    told = ward.doctor()
    assert [kind for kind, _, _ in told.findings()] == ["mode"] * 7
    assert ward.doctor("--fix").code == 0
    right[mine] = stat.S_IFREG | 0o640
    assert {path: path.stat().st_mode for path in right} == right


def oddity(kind: str, place: Path) -> None:
    """Put something where a file should be."""
    if kind == "FIFO":
        os.mkfifo(place)
    elif kind == "directory":
        place.mkdir()
    elif kind == "socket":
        with contextlib.chdir(place.parent), socket.socket(socket.AF_UNIX) as server:
            server.bind(place.name)
    else:
        target = place.parent.parent.parent / "target"
        target.write_text("half a li")
        place.symlink_to(target)


@POSIX
@pytest.mark.parametrize("kind", ["FIFO", "directory", "socket", "symbolic link"])
def test_what_is_no_file_is_said_and_neither_followed_nor_waited_for(ward: Ward, kind: str) -> None:
    """In each place of a run: reported, left where it is, and the doctor comes to its end."""
    names = ["session.json", "training.log", "evaluation.log", "effective_config.json"]
    for name in names:
        run = ward.completed(f"no-{name}")
        (run / name).unlink()
        (ward.root.parent / "target").unlink(missing_ok=True)
        oddity(kind, run / name)
    before = snapshot(ward.root)
    told: list[Told] = []
    asking = threading.Thread(target=lambda: told.append(ward.doctor("--fix")), daemon=True)
    asking.start()
    asking.join(10)
    assert told, f"the doctor waits for a {kind}"
    assert told[0].code == 1
    for name in names:
        assert ("odd", name, "problem") in told[0].findings(f"no-{name}")
    assert kind in told[0].runs["no-session.json"]["findings"][0]["text"]
    assert told[0].states["no-session.json"] == "unreadable"
    assert snapshot(ward.root) == before
    if kind == "symbolic link":
        assert (ward.root.parent / "target").read_text() == "half a li"


@POSIX
def test_models_that_are_a_link_are_said(ward: Ward) -> None:
    """A start refuses them, so they need attention; without a lockable log nothing is repaired."""
    run = ward.completed()
    (run / "models").rmdir()
    (run / "models").symlink_to(ward.root)
    (run / "evaluation.log").write_text("half")
    (run / "training.log").rename(run / "kept")
    (run / "training.log").symlink_to("kept")
    before = snapshot(ward.root)
    told = ward.doctor("--fix")
    assert told.findings() == [
        ("log", "evaluation.log", "problem"),
        ("odd", "models", "problem"),
        ("odd", "training.log", "problem"),
    ]
    assert snapshot(ward.root) == before


@pytest.mark.parametrize("broken", [b"", b"{", b"\xff{}", b"[" * 100_000])
def test_a_config_that_is_no_json_is_said(ward: Ward, broken: bytes) -> None:
    """The doctor cannot write another one; the next start does, and keeps the old."""
    run = ward.completed()
    (run / "effective_config.json").write_bytes(broken)
    told = ward.doctor("--fix")
    assert told.code == 1
    assert told.findings() == [("config", "effective_config.json", "problem")]
    assert (run / "effective_config.json").read_bytes() == broken


def test_what_the_trackers_have_not_sent_is_a_hint(ward: Ward) -> None:
    """It needs no attention of the doctor's: `keisei sync` is named, until W&B has got it."""
    run = ward.completed()
    kept = run / "wandb" / "offline-run-20260131_093015-01JD"
    kept.mkdir(parents=True)
    (kept / "run-01JD.wandb").write_bytes(b"x" * 99)
    left = {"run_id": "01JD", "state": "abandoned", "directory": "/there"}
    ward.record(trackers={"wandb": left | {"mode": "offline"}, "mine": left})
    told = ward.doctor("--fix")
    assert told.code == 0
    assert told.findings() == [("tracker", "mine", "hint"), ("tracker", "wandb", "hint")]
    assert "keisei sync r" in ward.said()[1]
    (kept / "run-01JD.wandb.synced").touch()
    assert ward.doctor().findings() == [("tracker", "mine", "hint")]


def test_a_start_between_the_look_and_the_lock_keeps_its_run(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the lock the doctor reads again, and leaves alone what has an owner by then."""
    ward.killed("r")
    locked, session = locks.locked, SessionManager(ward.make_config(), run_name="r")

    def after_a_start(directory: files.OpenDirectory, name: str) -> Any:
        monkeypatch.setattr(locks, "locked", locked)
        session.setup_directories()
        return locked(directory, name)

    monkeypatch.setattr(locks, "locked", after_a_start)
    told = ward.doctor("--fix")
    assert told.states == {"r": "running"}
    assert told.runs["r"]["repairs"] == []
    assert (ward.record()["status"], ward.record()["attempt"]) == ("running", 2)
    session.finalize_session()


def test_a_start_that_is_at_work_is_no_run_without_a_record(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new run's directory stands a moment before its record: the doctor waits for the start."""
    seen: list[Told] = []
    threads: list[threading.Thread] = []
    waiting = threading.Event()
    write, try_lock = files.write_atomic, locks._try_lock
    session = SessionManager(ward.make_config(), run_name="r")

    def look_first(directory: files.OpenDirectory, name: str, data: bytes) -> None:
        looking = threading.Thread(target=lambda: seen.append(ward.doctor()))
        looking.start()
        monkeypatch.setattr(files, "write_atomic", write)
        while not waiting.wait(0.01):
            assert looking.is_alive()
        write(directory, name, data)
        threads.append(looking)

    def tried(fd: int) -> bool:
        got = try_lock(fd)
        if not got:
            waiting.set()
        return got

    monkeypatch.setattr(locks, "_try_lock", tried)
    monkeypatch.setattr(files, "write_atomic", look_first)
    session.setup_directories()
    threads[0].join()
    assert (seen[0].code, seen[0].states) == (0, {"r": "running"})
    session.finalize_session()


def test_starts_and_repairs_at_the_same_moment_leave_each_run_one_truth(ward: Ward) -> None:
    """A start always gets the dead run; the doctor has ended the dead attempt, or done nothing."""
    ward.killed("r")
    rounds, repaired = 25, 0
    for attempt in range(2, rounds + 2):
        barrier = threading.Barrier(2)
        session = SessionManager(ward.make_config(), run_name="r")

        def start(session: SessionManager[Any] = session, to: threading.Barrier = barrier) -> None:
            to.wait()
            session.setup_directories()
            session.log_session_start()

        starting = threading.Thread(target=start)
        starting.start()
        barrier.wait()
        found = diagnose(str(ward.root / "r"))
        assert found is not None
        fixed = doctor.repair(found)
        starting.join()
        assert fixed.state in ("failed", "running")
        repaired += fixed.state == "failed"
        record = ward.record()
        assert (record["status"], record["attempt"]) == ("running", attempt)
        lines = ward.log()
        assert f"attempt {attempt}" in lines[-1]
        assert sum("its owner is gone" in line for line in lines) == repaired
        session.finalize_session()
        owner = record["owner"] | {"process_start": "long ago"}
        ward.record(status="running", owner=owner)
    print(f"{rounds} starts against {rounds} repairs: {repaired} repairs came first, none was late")
    with (
        SessionManager(ward.make_config(), run_name="r") as owned,
        pytest.raises(SessionInUseError),
    ):
        assert ward.doctor("--fix").states == {"r": "running"}
        SessionManager(ward.make_config(), run_name=owned.run_name).setup_directories()


def test_a_second_repair_changes_nothing_and_none_ever_deletes(ward: Ward) -> None:
    """All damage at once: what stood there is still there, and the second time all is quiet."""
    ward.killed("dead", "torn", "lost", "bare")
    for name in ("dead", "torn", "lost", "bare"):
        run = ward.root / name
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
    (ward.root / "torn" / "session.json").write_text("{")
    (ward.root / "torn" / "session.json.corrupt").write_text("{ before")
    (ward.root / "lost" / "session.json").unlink()
    (ward.root / "bare" / "session.json").unlink()
    (ward.root / "bare" / "training.log").write_text("no start line")
    dead = ward.record("dead")
    before = contents(ward.root) - {(ward.root / "dead" / "session.json").read_bytes()}

    told = ward.doctor("--fix")
    assert told.states == dict.fromkeys(("dead", "torn", "lost"), "failed") | {"bare": "no record"}
    assert told.findings("bare") == [("record", "session.json", "problem")]
    assert [name for name, run in told.runs.items() if run["needs_attention"]] == ["bare"]
    after = contents(ward.root)
    assert [text for text in before if not any(now.startswith(text) for now in after)] == []
    changed = ward.record("dead")
    assert {key for key in dead if dead[key] != changed[key]} == {"status", "ended_at"}

    quiet = snapshot(ward.root)
    again = ward.doctor("--fix")
    assert [run["repairs"] for run in again.runs.values()] == [[], [], [], []]
    assert snapshot(ward.root) == quiet
    assert ward.doctor("dead", "torn", "lost").code == 0
    repairs = sum(len(run["repairs"]) for run in told.runs.values())
    print(f"{repairs} repairs of 4 runs; {len(before)} of {len(before)} contents still there")
    assert repairs == 25 if os.name == "posix" else 19


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_repair_that_fails_is_said(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The old record is as it was, the status is not 0, and the next time it succeeds."""
    run = ward.killed("r")
    before = (run / "session.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", fail)
        told = ward.doctor("--fix")
    assert (told.code, told.states) == (1, {"r": "died"})
    assert told.findings() == [("owner", "", "repairable"), ("repair", "", "problem")]
    assert os.strerror(code) in told.runs["r"]["findings"][1]["text"]
    assert (run / "session.json").read_bytes() == before
    assert ward.doctor("--fix").code == 0


@pytest.mark.parametrize("name", ["session.json", "training.log", "effective_config.json"])
def test_what_cannot_be_read_is_said(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A record that cannot be read is not taken for a corrupt one, and nothing is repaired."""
    run = ward.completed()
    (run / "evaluation.log").write_text("half")
    before = snapshot(ward.root)
    opened = files.OpenDirectory.open

    def refuse(self: files.OpenDirectory, asked: str, flags: int) -> int:
        if asked == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), asked)
        return opened(self, asked, flags)

    monkeypatch.setattr(files.OpenDirectory, "open", refuse)
    told = ward.doctor() if name == "effective_config.json" else ward.doctor("--fix")
    assert told.code == 1
    assert ("odd", name, "problem") in told.findings()
    assert told.states["r"] == ("unreadable" if name == "session.json" else "completed")
    assert snapshot(ward.root) == before


@POSIX
def test_a_directory_that_may_not_be_opened_is_its_owners_affair(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's own needs attention; in a root that is shared, another user's does not."""
    ward.completed()

    class Closed(files.OpenDirectory):
        def __init__(self, path: str) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(files, "OpenDirectory", Closed)
    mine = ward.doctor()
    assert (mine.code, mine.states) == (1, {"r": "unreadable"})
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    others = ward.doctor("--fix")
    assert (others.code, others.states) == (0, {"r": "unreadable"})


def test_runs_are_named_by_name_or_path(ward: Ward, tmp_path: Path) -> None:
    """Each once, in the order in which they were named; the environment's root comes first."""
    for name in ("a", "b", "c"):
        ward.completed(name)
    told = ward.doctor("b", str(ward.root / "a"), "runs/a", "./runs/b/")
    assert list(told.states) == ["b", "a"]
    done = CliRunner().invoke(
        app, ["doctor", "--root", "nowhere", "c"], env={"KEISEI_LOG_DIR": str(ward.root)}
    )
    assert done.exit_code == 0, done.output


def test_an_unknown_run_says_where_it_looked_and_what_is_there(ward: Ward) -> None:
    """With the nearest names first; a link is not followed, and says so."""
    for name in ("cartpole-1", "walker-1", "walker-2", *"abcdef"):
        ward.completed(name)
    code, out, error = ward.said("walkr-1")
    assert (code, out) == (1, "")
    assert f"there is no run 'walkr-1' under {str(ward.root)!r}" in error
    assert "There is 'walker-1', 'walker-2' and 7 more" in error
    assert "nor at that path" in ward.said("../outside")[2]
    if os.name != "nt":
        (ward.root / "latest").symlink_to("walker-1")
        assert "is a symbolic link, and none is followed" in ward.said("latest")[2]


def test_a_root_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Where somebody named it, it is an error; where nobody did, there are no runs."""
    done = CliRunner().invoke(app, ["doctor"])
    assert (done.exit_code, done.stdout) == (0, f"There are no runs under {tmp_path / 'runs'}.\n")
    done = CliRunner().invoke(app, ["doctor", "--root", "nowhere"])
    assert done.exit_code == 1
    assert "there is no directory" in done.stderr
    assert "--root" in done.stderr
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["doctor", "--root", "file"])
    assert done.exit_code == 1
    assert "cannot be listed: Not a directory" in done.stderr
    done = CliRunner().invoke(app, ["doctor", "--root", "a\0b"])
    assert done.exit_code == 1
    assert "null byte" in done.stderr


@POSIX
def test_names_are_printed_escaped(ward: Ward) -> None:
    """No name, host or id writes to the terminal: control characters, markup, odd bytes."""
    hostile = "x\n[red]\x1b[2Jy\u202e\u2028"
    ward.elsewhere("far", host=hostile)
    (ward.root / hostile / "models").mkdir(parents=True)
    os.makedirs(os.path.join(os.fsencode(ward.root), b"\xff\xfe", b"models"))
    code, out, _ = ward.said()
    assert code == 1
    assert all(line.isprintable() for line in out.splitlines())
    assert len(out.splitlines()) == 6
    assert r"x\n[red]\x1b[2Jy\u202e\u2028" in out
    assert r"\udcff\udcfe" in out
    assert ward.doctor().states[hostile] == "no record"


def test_words_are_one_line_for_each_run_with_the_findings_below(
    ward: Ward, living: SessionManager[Any]
) -> None:
    """Plain where it is piped, and at the end what there is to do."""
    ward.completed("fine")
    ward.killed("r")
    _, out, _ = ward.said()
    fine, alive, dead, finding, last = out.splitlines()
    assert fine.split()[:2] == ["fine", "completed"]
    assert alive.split()[:2] == ["living", "running"]
    assert f"process {os.getpid()} on {socket.gethostname()}, since" in alive
    assert dead.split()[:2] == ["r", "died"]
    assert finding == "    to repair: its owner is gone"
    assert last.startswith("3 runs: 1 completed, 1 running, 1 died; 1 needs attention; --fix")
    code, out, _ = ward.said("--fix")
    assert code == 0
    assert out.splitlines()[3].startswith("    repaired: its owner, process")
    assert out.splitlines()[-1].endswith("1 repair made; nothing needs attention")


@POSIX
def test_a_terminal_sees_colours_and_progress(ward: Ward) -> None:
    """The state is coloured, and while it works it says at which run it is."""
    import pty

    (ward.completed() / "session.json").unlink()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from keisei.cli import main; main()", "doctor", "r"]
    environ = os.environ | {"KEISEI_LOG_DIR": str(ward.root), "TERM": "xterm", "COLUMNS": "200"}
    environ.pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=theirs, env=environ) as asked:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the terminal's other end has closed
            while part := os.read(ours, 4096):
                seen += part
        os.close(ours)
    assert asked.returncode == 1
    assert b"\x1b[31mno record" in seen
    assert b"looking at r" in seen


def test_a_thousand_runs_are_told_in_one_go(ward: Ward) -> None:
    """Each is in the document; the time that it took is printed."""
    run = ward.completed("r-0")
    text = (run / "session.json").read_bytes()
    for number in range(1, 1000):
        (ward.root / f"r-{number}").mkdir(0o700)
        (ward.root / f"r-{number}" / "session.json").write_bytes(text)
        (ward.root / f"r-{number}" / "session.json").chmod(0o600)
    begun = time.perf_counter()
    told = ward.doctor()
    seconds = time.perf_counter() - begun
    print(f"{len(told.states)} runs told in {seconds:.2f} s")
    assert (told.code, len(told.states)) == (0, 1000)
