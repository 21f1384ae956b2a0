"""`keisei doctor` tells how runs are, whatever stands there, and touches nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei._io import files, locks
from tests.conftest import MakeConfig
from tests.support.runs import Report, Runs, snapshot

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


def test_each_run_is_in_its_state_and_what_is_no_run_is_passed_over(
    runs: Runs, living: SessionManager[Any]
) -> None:
    """Running, died, elsewhere, each end, corrupt and without a record; nothing is touched."""
    runs.killed("dead")
    runs.elsewhere("far")
    for status in ("completed", "failed", "cancelled", "preempted"):
        runs.completed(status)
        runs.record(status, status=status)
    (runs.completed("torn") / "session.json").write_text('{"x')
    for sign in ("training.log", "effective_config.json", "session.json"):
        (runs.root / f"with {sign}").mkdir()
        (runs.root / f"with {sign}" / sign).write_text("{}")
    (runs.root / "with models" / "models").mkdir(parents=True)
    (runs.root / "empty").mkdir()
    (runs.root / "other" / "deeper" / "models").mkdir(parents=True)
    (runs.root / "file").write_text("")
    if os.name != "nt":
        (runs.root / "latest").symlink_to(runs.root / "dead")
        (runs.root / "dangling").symlink_to(runs.root / "nowhere")
    before = snapshot(runs.root)
    told = runs.doctor()
    assert told.states == {
        "living": "running",
        "dead": "died",
        "far": "elsewhere",
        "completed": "completed",
        "failed": "failed",
        "cancelled": "cancelled",
        "preempted": "preempted",
        "torn": "corrupt",
    }
    assert told.code == 1
    needy = {name for name, run in told.runs.items() if run["needs_attention"]}
    assert needy == {"dead", "torn"}
    assert told.document["need_attention"] == len(needy)
    assert told.runs["living"]["owner"]["pid"] == os.getpid()
    assert snapshot(runs.root) == before
    assert runs.doctor("living", "far", "completed", "failed").code == 0


def test_of_this_host_only_what_cannot_be_seen_is_gone(
    runs: Runs, living: SessionManager[Any]
) -> None:
    """A container of its name may have died unseen; who is seen to live is left alone."""
    runs.elsewhere("contained", socket.gethostname(), kernel="vm/an earlier one")
    assert runs.doctor("--fix").states == {"contained": "elsewhere", "living": "running"}
    told = runs.doctor("--fix", "--gone", socket.gethostname())
    assert told.states == {"contained": "failed", "living": "running"}
    assert runs.record("living")["status"] == "running"


def test_an_owner_whose_number_another_process_has_by_now_is_gone(runs: Runs) -> None:
    """A process is known by its number and by when it started."""
    runs.elsewhere(host=socket.gethostname(), process_start="long ago")
    assert runs.doctor().states == {"r": "died"}
    assert runs.doctor("--fix").states == {"r": "failed"}


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
def test_what_is_no_file_is_said_and_neither_followed_nor_waited_for(runs: Runs, kind: str) -> None:
    """In each place of a run: reported, left where it is, and the doctor comes to its end."""
    names = ["session.json", "training.log", "evaluation.log", "effective_config.json"]
    for name in names:
        run = runs.completed(f"no-{name}")
        (run / name).unlink()
        (runs.root.parent / "target").unlink(missing_ok=True)
        oddity(kind, run / name)
    before = snapshot(runs.root)
    told: list[Report] = []
    asking = threading.Thread(target=lambda: told.append(runs.doctor("--fix")), daemon=True)
    asking.start()
    asking.join(60)
    assert told, f"the doctor waits for a {kind}"
    assert told[0].code == 1
    for name in names:
        assert ("odd", name, "problem") in told[0].findings(f"no-{name}")
    assert kind in told[0].runs["no-session.json"]["findings"][0]["text"]
    assert told[0].states["no-session.json"] == "unreadable"
    assert snapshot(runs.root) == before
    if kind == "symbolic link":
        assert (runs.root.parent / "target").read_text() == "half a li"


@POSIX
def test_models_that_are_a_link_are_said(runs: Runs) -> None:
    """A start refuses them, so they need attention; without a lockable log nothing is repaired."""
    run = runs.completed()
    (run / "models").rmdir()
    (run / "models").symlink_to(runs.root)
    (run / "evaluation.log").write_text("half")
    (run / "training.log").rename(run / "kept")
    (run / "training.log").symlink_to("kept")
    before = snapshot(runs.root)
    told = runs.doctor("--fix")
    assert told.findings() == [
        ("log", "evaluation.log", "problem"),
        ("odd", "models", "problem"),
        ("odd", "training.log", "problem"),
    ]
    assert snapshot(runs.root) == before


@pytest.mark.parametrize("broken", [b"", b"{", b"\xff{}", b"[" * 100_000])
def test_a_config_that_is_no_json_is_said(runs: Runs, broken: bytes) -> None:
    """The doctor cannot write another one; the next start does, and keeps the old."""
    run = runs.completed()
    (run / "effective_config.json").write_bytes(broken)
    told = runs.doctor("--fix")
    assert told.code == 1
    assert told.findings() == [("config", "effective_config.json", "problem")]
    assert (run / "effective_config.json").read_bytes() == broken


def test_what_trackers_have_not_got_is_a_hint(runs: Runs) -> None:
    """It needs no attention of the doctor's: `keisei sync` is named, until nothing is missing."""
    with SessionManager(runs.make_config(), run_name="r") as session:
        for step in range(3):
            session.log_metrics({"loss": 1.0}, step)
    run = runs.root / "r"
    kept = run / "wandb" / "offline-run-20260131_093015-01JD"
    kept.mkdir(parents=True)
    (kept / "run-01JD.wandb").write_bytes(b"x" * 99)
    runs.record(trackers={"mine": {"state": "abandoned"}})
    told = runs.doctor("--fix")
    assert told.code == 0
    assert told.findings() == [("tracker", "mine", "hint"), ("tracker", "wandb", "hint")]
    _, out, _ = runs.doctor_text()
    assert "hint: mine: it has not got 3 rows: keisei sync r" in out
    assert "None" not in out
    (kept / "run-01JD.wandb.synced").touch()
    assert runs.doctor().findings() == [("tracker", "mine", "hint")]


@pytest.mark.parametrize("name", ["session.json", "training.log", "effective_config.json"])
def test_what_cannot_be_read_is_said(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A record that cannot be read is not taken for a corrupt one, and nothing is repaired."""
    run = runs.completed()
    (run / "evaluation.log").write_text("half")
    before = snapshot(runs.root)
    opened = files.OpenDirectory.open

    def refuse(self: files.OpenDirectory, asked: str, flags: int) -> int:
        if asked == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), asked)
        return opened(self, asked, flags)

    monkeypatch.setattr(files.OpenDirectory, "open", refuse)
    told = runs.doctor() if name == "effective_config.json" else runs.doctor("--fix")
    assert told.code == 1
    assert ("odd", name, "problem") in told.findings()
    assert told.states["r"] == ("unreadable" if name == "session.json" else "completed")
    assert snapshot(runs.root) == before


@POSIX
def test_a_directory_that_may_not_be_opened_is_its_owners_affair(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's own needs attention; in a root that is shared, another user's does not."""
    runs.completed()

    class Closed(files.OpenDirectory):
        def __init__(self, path: str) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(files, "OpenDirectory", Closed)
    mine = runs.doctor()
    assert (mine.code, mine.states) == (1, {"r": "unreadable"})
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    others = runs.doctor("--fix")
    assert (others.code, others.states) == (0, {"r": "unreadable"})


def test_runs_are_named_by_name_or_path(runs: Runs, tmp_path: Path) -> None:
    """Each once, in the order in which they were named, whatever the root is."""
    for name in ("a", "b", "c"):
        runs.completed(name)
    told = runs.doctor("b", str(runs.root / "a"), "runs/a", "./runs/b/")
    assert list(told.states) == ["b", "a"]
    assert list(runs.doctor("--root", "nowhere", "runs/c").states) == ["c"]


def test_an_unknown_run_says_where_it_looked_and_what_is_there(runs: Runs) -> None:
    """With the nearest names first; a link is not followed, and says so."""
    for name in ("cartpole-1", "walker-1", "walker-2", *"abcdef"):
        runs.completed(name)
    code, out, error = runs.doctor_text("walkr-1")
    assert (code, out) == (2, "")
    assert f"there is no run 'walkr-1' under {str(runs.root)!r}" in error
    assert "There is 'walker-1', 'walker-2' and 7 more" in error
    assert "nor at that path" in runs.doctor_text("../outside")[2]
    if os.name != "nt":
        (runs.root / "latest").symlink_to("walker-1")
        assert "is a symbolic link, and none is followed" in runs.doctor_text("latest")[2]


@POSIX
def test_names_are_printed_escaped(runs: Runs) -> None:
    """No name, host or id writes to the terminal: control characters, markup, odd bytes."""
    hostile = "x\n[red]\x1b[2Jy\u202e\u2028"
    runs.elsewhere("far", host=hostile)
    odd = os.fsdecode(b"\xff\xfe")
    for name in (hostile, odd):
        runs.completed().rename(runs.root / name)
        (runs.root / name / "session.json").unlink()
    code, out, _ = runs.doctor_text()
    assert code == 1
    assert all(line.isprintable() for line in out.splitlines())
    assert len(out.splitlines()) == 6
    assert r"x\n[red]\x1b[2Jy\u202e\u2028" in out
    assert r"\udcff\udcfe" in out
    assert runs.doctor().states[hostile] == "no session file"


def test_words_are_one_line_for_each_run_with_the_findings_below(
    runs: Runs, living: SessionManager[Any]
) -> None:
    """Plain where it is piped, and at the end what there is to do."""
    runs.completed("fine")
    runs.killed("r")
    _, out, _ = runs.doctor_text()
    fine, alive, dead, finding, last = out.splitlines()
    assert fine.split()[:2] == ["fine", "completed"]
    assert alive.split()[:2] == ["living", "running"]
    assert f"process {os.getpid()} on {socket.gethostname()}, since" in alive
    assert dead.split()[:2] == ["r", "died"]
    assert finding == "    to repair: its owner is gone"
    assert last.startswith("3 runs: 1 completed, 1 running, 1 died; 1 needs attention; --fix")
    code, out, _ = runs.doctor_text("--fix")
    assert code == 0
    assert out.splitlines()[3].startswith("    repaired: its owner, process")
    assert out.splitlines()[-1].endswith("1 repair made; nothing needs attention")


@POSIX
def test_a_terminal_sees_colours_and_progress(runs: Runs) -> None:
    """The state is coloured, and while it works it names the run that it checks."""
    import pty

    (runs.completed() / "session.json").unlink()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from keisei.cli import main; main()", "doctor", "r"]
    environ = os.environ | {"KEISEI_LOG_DIR": str(runs.root), "TERM": "xterm", "COLUMNS": "200"}
    environ.pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=theirs, env=environ) as asked:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the terminal's other end has closed
            while part := os.read(ours, 4096):
                seen += part
        os.close(ours)
    assert asked.returncode == 1
    assert b"\x1b[31mno session file" in seen
    assert b"checking r" in seen


def test_a_thousand_runs_are_told_in_one_go(runs: Runs) -> None:
    """Each is in the document; the time that it took is printed."""
    run = runs.completed("r-0")
    text = (run / "session.json").read_bytes()
    for number in range(1, 1000):
        (runs.root / f"r-{number}").mkdir(0o700)
        (runs.root / f"r-{number}" / "session.json").write_bytes(text)
        (runs.root / f"r-{number}" / "session.json").chmod(0o600)
    begun = time.perf_counter()
    told = runs.doctor()
    seconds = time.perf_counter() - begun
    print(f"{len(told.states)} runs told in {seconds:.2f} s")
    assert (told.code, len(told.states)) == (0, 1000)


def test_a_start_that_is_at_work_is_no_run_without_a_record(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the record was lost the start writes a new one: the doctor waits for the start."""
    (runs.completed() / "session.json").unlink()
    seen: list[Report] = []
    threads: list[threading.Thread] = []
    waiting = threading.Event()
    write, try_lock = files.write_atomic, locks._try_lock
    session = SessionManager(runs.make_config(), run_name="r")

    def look_first(directory: files.OpenDirectory, name: str, data: bytes, **how: bool) -> None:
        looking = threading.Thread(target=lambda: seen.append(runs.doctor()))
        looking.start()
        monkeypatch.setattr(files, "write_atomic", write)
        while not waiting.wait(0.01):
            assert looking.is_alive()
        write(directory, name, data, **how)
        threads.append(looking)

    def tried(fd: int, *, shared: bool = False) -> bool | None:
        got = try_lock(fd, shared=shared)
        if not got and not shared:
            waiting.set()
        return got

    monkeypatch.setattr(locks, "_try_lock", tried)
    monkeypatch.setattr(files, "write_atomic", look_first)
    session.setup_directories()
    threads[0].join()
    assert (seen[0].code, seen[0].states) == (0, {"r": "running"})
    session.finalize_session()


def test_a_failed_run_says_why(runs: Runs) -> None:
    """The line and the JSON have the error's type, message and place."""
    with pytest.raises(RuntimeError), SessionManager(runs.make_config(), run_name="bad"):
        raise RuntimeError("CUDA out of memory")
    code, text, _ = runs.doctor_text()
    assert code == 0
    assert f"RuntimeError: CUDA out of memory ({__file__}:" in text
    assert runs.doctor().runs["bad"]["failure"]["message"] == "CUDA out of memory"
