"""Whether an owner lives is never guessed: who cannot be seen lives, unless its lock is free."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keisei import AppConfig, SessionInUseError, SessionManager, TakenOverError
from keisei._io import locks, process
from keisei.run import owned
from tests.conftest import MakeConfig
from tests.support.runs import Runs

PROGRAM = """
import sys, time
from keisei import AppConfig, SessionInUseError, SessionManager
try:
    with SessionManager(AppConfig(), run_name="r") as session:
        print("attempt", session.get_session_summary()["attempt"], flush=True)
        if sys.argv[1] == "stay":
            sys.stdin.read()
except SessionInUseError:
    print("refused", flush=True)
"""
UNSHARED = {
    "here": [],
    "container": ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"],
    "container with another host name": [
        *["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"],
        *["sh", "-c", 'hostname another && exec "$0" "$@"'],
    ],
    "container with the host's /proc": ["unshare", "--pid", "--fork", "--kill-child"],
    "sandbox without /proc": [
        *["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"']
    ],
}


def can(how: str) -> bool:
    """Check that this process may make such a place."""
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([*UNSHARED[how], "true"], capture_output=True).returncode == 0
    return False


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """The root where the tests' configs let runs live."""
    return Runs(tmp_path / "runs", make_config)


@contextlib.contextmanager
def living(runs: Runs, how: str = "here", **more: str) -> Iterator[subprocess.Popen[str]]:
    """Start run `r` in a process that stays; it is killed in the end."""
    environ = {**os.environ, "KEISEI_LOG_DIR": str(runs.root), **more}
    with subprocess.Popen(
        [*UNSHARED[how], sys.executable, "-c", PROGRAM, "stay"],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline().startswith("attempt")
            yield program
        finally:
            program.kill()
            if program.stdout is not None and not program.stdout.closed:
                program.stdout.read()  # to the end of the last process in there


def start(runs: Runs, how: str) -> str:
    """Start run `r` once more, and return what comes of it."""
    done = subprocess.run(
        [*UNSHARED[how], sys.executable, "-c", PROGRAM, "go"],
        env={**os.environ, "KEISEI_LOG_DIR": str(runs.root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.requirement("RANK-0")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("container", "container"),
        ("container", "here"),
        ("here", "container"),
        ("container with another host name", "container"),
        ("container with the host's /proc", "container with the host's /proc"),
        ("sandbox without /proc", "sandbox without /proc"),
        ("sandbox without /proc", "here"),
        ("here", "sandbox without /proc"),
    ],
)
def test_of_two_places_that_do_not_see_each_other_one_owns_the_run(
    runs: Runs, first: str, second: str
) -> None:
    """The other is refused while the first lives, and doctor leaves its run alone."""
    for how in (first, second):
        if not can(how):
            pytest.skip(f"this process may not make a {how}")
    with living(runs, first) as program:
        assert start(runs, second) == "refused"
        before = runs.record()
        assert runs.doctor("--fix").states == {"r": "running"}
        assert runs.record() == before
        program.communicate("")
    assert runs.record()["status"] == "completed"
    assert (runs.record()["attempt"], start(runs, second)) == (1, "attempt 2")


@pytest.mark.requirement("RANK-0")
@pytest.mark.parametrize("how", ["container", "container with another host name"])
def test_a_container_that_was_killed_is_known_by_its_lock(runs: Runs, how: str) -> None:
    """Its successor on the same machine takes the run up; no setting is needed."""
    if not can(how):
        pytest.skip(f"this process may not make a {how}")
    with living(runs, how):
        pass
    assert runs.doctor().states == {"r": "died"}
    assert start(runs, how) == "attempt 2"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
def test_a_stopped_owner_lives(runs: Runs) -> None:
    """As long as it can be woken, nobody takes its run."""
    with living(runs) as program:
        program.send_signal(signal.SIGSTOP)
        assert start(runs, "here") == "refused"
        assert runs.doctor("--fix").states == {"r": "running"}
        program.send_signal(signal.SIGCONT)
        program.communicate("")
    assert runs.record()["status"] == "completed"


def unseen(monkeypatch: pytest.MonkeyPatch, runs: Runs, **owner: Any) -> None:
    """Make the owner of run `r` one that cannot be seen from here, and no locks."""
    monkeypatch.setattr(locks, "_try_lock", lambda fd, shared=False: None)
    runs.record(owner={**runs.record()["owner"], "pid_namespace": "pid:[1]", **owner})


@pytest.mark.requirement("RANK-0")
@pytest.mark.parametrize(
    "owner", [{}, {"pid_namespace": None}, {"kernel": "another/boot"}, {"host": "node-7"}], ids=str
)
def test_without_locks_an_owner_that_cannot_be_seen_lives(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, owner: dict[str, Any]
) -> None:
    """Nor has it died because its process's number is free here."""
    runs.killed("r")
    unseen(monkeypatch, runs, machine=None, **owner)
    with pytest.raises(SessionInUseError, match="owner_timeout"):
        SessionManager(runs.make_config(), run_name="r").setup_directories()
    assert runs.doctor("--fix").states == {"r": "elsewhere"}
    assert runs.record()["status"] == "running"


def test_a_free_lock_of_another_mount_tells_nothing(runs: Runs) -> None:
    """Two mounts of one share on one machine may have locks of their own."""
    runs.killed("r")
    owner = runs.record()["owner"] | {"pid_namespace": "pid:[1]"}
    runs.record(owner=owner)
    assert runs.doctor().states == {"r": "died"}
    runs.record(owner=owner | {"locked": "1:2"})
    assert runs.doctor().states == {"r": "elsewhere"}


@pytest.mark.skipif(process.machine() is None, reason="this is a container, or has no machine id")
def test_what_ran_before_this_machine_was_started_again_has_died(runs: Runs) -> None:
    """After a loss of power the next start works without help; another machine's lives."""
    runs.killed("r")
    owner = runs.record()["owner"] | {"kernel": f"{process.host_name()}/earlier"}
    runs.record(owner=owner)
    assert runs.doctor().states == {"r": "died"}
    runs.record(owner=owner | {"machine": "another"})
    assert runs.doctor().states == {"r": "elsewhere"}


def test_a_lock_that_a_forked_process_keeps_does_not_keep_the_run(runs: Runs) -> None:
    """Who forks without Python leaves it a copy; the owner is seen to be dead all the same."""
    run = runs.killed("r")
    fd = os.open(run, os.O_RDONLY)
    assert locks._try_lock(fd) is True
    assert runs.doctor().states == {"r": "died"}
    with SessionManager(runs.make_config(), run_name="r") as session:
        assert session.get_session_summary()["attempt"] == 2
    os.close(fd)


@pytest.mark.requirement("RANK-0")
def test_a_session_file_that_is_removed_frees_no_live_run(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    """The start is refused, doctor waits, and the end writes the file again and says so."""
    with SessionManager(runs.make_config(), run_name="r") as session:
        (runs.root / "r" / "session.json").unlink()
        with pytest.raises(SessionInUseError, match="another process"):
            SessionManager(runs.make_config(), run_name="r").setup_directories()
        told = runs.doctor("--fix")
        assert told.states == {"r": "no session file"}
        assert told.findings() == [("session file", "session.json", "problem")]
    assert runs.record()["status"] == session.status == "completed"
    assert "session file of run r was removed while its owner lives" in caplog.text


@pytest.mark.requirement("RANK-0")
def test_the_end_of_an_owner_that_was_taken_over_overwrites_nothing(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has said that its host is gone: its end is an error, and changes nothing there."""
    session = SessionManager(runs.make_config(), run_name="r")
    with pytest.raises(TakenOverError, match="as attempt 2"), session:
        unseen(monkeypatch, runs)
        assert runs.doctor("--fix", "--gone", process.host_name()).states == {"r": "failed"}
        with SessionManager(runs.make_config(), run_name="r") as second:
            assert second.get_session_summary()["attempt"] == 2
        before, log = runs.record(), runs.log()
    assert runs.record() == before
    assert runs.log() == log
    assert f"process {os.getpid()} on host" in caplog.text
    assert "has taken the run over, as attempt 2" in caplog.text
    assert session.status == "failed"


# A write while the session file is somebody else's would rightly end the session.
def test_an_end_that_was_wrongly_recorded_is_put_right(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has taken the run since: how its owner says that it ended is the truth."""
    with SessionManager(runs.make_config(), run_name="r"):
        unseen(monkeypatch, runs)
        own = owned.this_owner()
        monkeypatch.setattr(owned, "this_owner", lambda: own)
        assert runs.doctor("--fix", "--gone", process.host_name()).states == {"r": "failed"}
        owner = runs.record()["owner"] | {"pid_namespace": own.pid_namespace}
        runs.record(owner=owner)
    assert runs.record()["status"] == "completed"


def silent(runs: Runs, seconds: float) -> None:
    """Set the times of a run's files back."""
    for path in (runs.root / "r").iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.requirement("RANK-0")
def test_after_the_owners_timeout_its_run_is_taken_up(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only of an owner that cannot be seen and has shown no sign of life for so long."""
    config = runs.make_config(logging={"owner_timeout": 100})
    runs.killed("r")
    unseen(monkeypatch, runs, host="node-7", timeout=100)
    for age, timeout, taken in ((90, 100, False), (150, 200, False), (110, 100, True)):
        silent(runs, age)
        config.logging.owner_timeout = timeout
        session = SessionManager(config, run_name="r")
        if taken:
            session.setup_directories()
            session.finalize_session()
        else:
            with pytest.raises(SessionInUseError):
                session.setup_directories()
    assert runs.record()["attempt"] == 2


def test_an_owner_without_the_setting_shows_no_signs_and_is_never_timed_out(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may train for hours without a word."""
    runs.killed("r")
    unseen(monkeypatch, runs, host="node-7")
    silent(runs, 10_000)
    config = runs.make_config(logging={"owner_timeout": 1})
    with pytest.raises(SessionInUseError):
        SessionManager(config, run_name="r").setup_directories()


def test_an_owner_with_the_setting_shows_signs_of_life_until_its_end(runs: Runs) -> None:
    """It touches its session file, from a thread that ends with the session."""
    config = runs.make_config(logging={"owner_timeout": 0.2})
    path = runs.root / "r" / "session.json"
    with SessionManager(config, run_name="r"):
        for _ in range(3):
            os.utime(path, (1, 1))
            deadline = time.monotonic() + 20
            while path.stat().st_mtime < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        (shower,) = [t for t in threading.enumerate() if t.name == "keisei-owner"]
    shower.join(60)
    assert not shower.is_alive()


def test_only_who_has_the_setting_gets_a_thread(runs: Runs) -> None:
    """Without it nothing is touched."""
    with SessionManager(runs.make_config(), run_name="r"):
        assert not [t for t in threading.enumerate() if t.name == "keisei-owner"]
    assert json.loads((runs.root / "r" / "session.json").read_text())["owner"]["timeout"] is None


def test_the_setting_is_a_time() -> None:
    """It is checked as every field is."""
    with pytest.raises(ValueError, match="owner_timeout"):
        AppConfig.model_validate({"logging": {"owner_timeout": 0}})
