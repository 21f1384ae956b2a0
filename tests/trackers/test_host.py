"""Trackers in processes of their own: whatever becomes of one or of the program, no row is lost."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import zipapp
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from keisei import AsyncSessionManager, ConfigError, SessionManager
from keisei._io import process, spawn
from keisei._io.files import OpenDirectory
from keisei.journal.reader import read_run
from keisei.trackers import cursor
from keisei.trackers.host import client
from tests.conftest import TWO_BACKENDS, MakeConfig
from tests.support.forks import in_child
from tests.support.line_tracker import lines_of
from tests.support.session_files import record_of
from tests.support.third_party import install

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name == "nt", reason="kills and signals as POSIX does")


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(install(tmp_path / "site"))
    yield
    for host in list(client._hosts.values()):
        host.retire()


def pid_of(session: Any) -> int:
    """Return the id of the process in which the session's tracker lives."""
    return int(Path(session.run_artifact_dir, "pid").read_text())


def until(true: Callable[[], object], timeout: float = 60.0) -> bool:
    """Wait until something is true."""
    give_up = time.monotonic() + timeout
    while not true() and time.monotonic() < give_up:
        time.sleep(0.005)
    return bool(true())


def gone(pid: int, timeout: float = 60.0) -> bool:
    """Wait until a process has ended."""
    return until(lambda: process.process_start(pid) is None, timeout)


def held(directory: str) -> list[tuple[object, object]]:
    """Return attempt and number of everything that the tracker has."""
    return [(line[0], line[1]) for line in lines_of(directory)]


def end_of(directory: str) -> str | None:
    """Return how the tracker was told that the run ended."""
    path = Path(directory, "lines.end")
    return path.read_text() if path.exists() else None


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that keisei has logged."""
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.requirement("HOST-1", "HOST-2")
async def test_rows_arrive_and_what_is_printed_disturbs_nobody(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The tracker is another process; what keisei logs there is heard here."""
    async with AsyncSessionManager(make_config()) as session:
        assert await session.setup_remote_logging("lines", says="careful") is True
        for step in range(600):
            session.log_metrics({"loss": 1.0}, step=step)
        pid = await anyio.to_thread.run_sync(pid_of, session)
    assert pid != os.getpid()
    directory = session.run_artifact_dir
    assert await anyio.to_thread.run_sync(held, directory) == [(1, n) for n in range(600)]
    assert warnings_in(caplog) == ["careful"]
    known = record_of(session)["trackers"]["lines"]
    assert (known["state"], known["run_id"]) == ("finished", session.session_id)
    assert "third_party_lines" not in sys.modules
    assert capfd.readouterr() == ("", "")


@pytest.mark.requirement("HOST-1")
def test_sessions_of_a_program_share_the_process(make_config: MakeConfig) -> None:
    """Twenty sessions at once and one after the other have one; it ends when it is not needed."""
    sessions = [SessionManager(make_config(), run_name=f"r{n}") for n in range(20)]
    for session in sessions:
        session.setup_directories()
        assert session.setup_remote_logging("lines") is True
    for number, session in enumerate(sessions):
        session.log_metrics({"loss": float(number)})
    assert {session.finalize_session() for session in sessions} == {"completed"}
    with SessionManager(make_config(), run_name="later") as later:
        later.setup_remote_logging("lines")
    (pid,) = {pid_of(session) for session in [*sessions, later]}
    for session in sessions:
        assert held(session.run_artifact_dir) == [(1, 0)]
    for host in client._hosts.values():
        host.retire()
    assert gone(pid)


@pytest.mark.requirement("HOST-1")
def test_another_environment_makes_another_process(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tracker's SDK reads variables: it sees those of its session, and its working directory."""
    pids = []
    for number in range(2):
        monkeypatch.setenv("LINES_SERVER", str(number))
        with SessionManager(make_config(), run_name=f"r{number}") as session:
            session.setup_remote_logging("lines")
            pids.append(pid_of(session))
            environ = Path(f"/proc/{pids[-1]}/environ")
            if environ.exists():
                assert f"LINES_SERVER={number}".encode() in environ.read_bytes()
    assert pids[0] != pids[1]
    assert gone(pids[0])  # nobody can want the first any more
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with SessionManager(make_config(), run_name="away") as session:
        assert session.setup_remote_logging("lines", away=True) is False
        (elsewhere / "well").touch()  # a relative path, where the program stands
        session.log_metrics({"loss": 1.0})
    assert until(lambda: end_of(session.run_artifact_dir))
    assert held(session.run_artifact_dir) == [(1, 0)]
    assert pid_of(session) == pids[1]


@posix
@pytest.mark.requirement("HOST-2")
def test_a_process_that_dies_is_replaced(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed four times in the middle of a run it is started again: no row is lost or twice."""
    with SessionManager(make_config(journal={"max_delay": 0.0})) as session:
        session.setup_remote_logging("lines")
        killed = set()
        for step in range(800):
            session.log_metrics({"loss": 1.0}, step=step)
            if step % 200 == 100:
                session.flush()
                killed.add(pid_of(session))
                os.kill(pid_of(session), signal.SIGKILL)
                assert until(lambda: pid_of(session) not in killed)
                assert until(lambda: len(held(session.run_artifact_dir)) > 200 * len(killed) - 100)
        assert len(killed) == 4
        session.flush()
        logged = session.get_session_summary()["journal"]["logged"]
    assert held(session.run_artifact_dir) == [(1, n) for n in range(logged)]
    assert end_of(session.run_artifact_dir) == "completed"
    (said,) = warnings_in(caplog)
    assert "its process has ended (status -9)" in said
    assert "started again" in said


@pytest.mark.requirement("HOST-3", "FIN-2")
@pytest.mark.parametrize("anyio_backend", TWO_BACKENDS)
async def test_one_that_hangs_does_not_hold_the_end(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """At its timeout the session ends; the process goes on for as long as it may linger."""
    config = make_config(tracking={"finish_timeout": 0.3, "linger": 0.5})
    async with AsyncSessionManager(config) as session:
        assert await session.setup_remote_logging("lines", hangs_in="send") is True
        session.log_metrics({"loss": 1.0})
        pid = await anyio.to_thread.run_sync(pid_of, session)
    known = record_of(session)["trackers"]["lines"]
    assert (known["state"], known["behind"]) == ("abandoned", 1)
    (said,) = warnings_in(caplog)
    assert "did not finish within 0.3 s: its process goes on for 0.5 s at most" in said
    assert "1 rows and events wait for it" in said
    assert not await anyio.to_thread.run_sync(gone, pid, 0.0)


@pytest.mark.requirement("HOST-3")
def test_what_is_slow_is_brought_to_its_end_after_the_session(make_config: MakeConfig) -> None:
    """A session that could not wait for its tracker is finished by the process, and recorded so."""
    config = make_config(tracking={"finish_timeout": 0.2})
    with SessionManager(config) as session:
        session.setup_remote_logging("lines", slow=0.2)
        for _ in range(1000):
            session.log_metrics({"loss": 1.0})
    directory = session.run_artifact_dir
    assert record_of(session)["trackers"]["lines"]["state"] == "abandoned"
    assert until(lambda: end_of(directory) == "completed")
    assert held(directory) == [(1, n) for n in range(1000)]
    assert until(lambda: cursor.load(directory, "lines").known.state == "finished")


PROGRAM = """
import os, sys, time
sys.path[:0] = sys.argv[1:3]
from keisei import SessionManager, load_config
overrides = {"logging": {"log_dir": sys.argv[3]}, "journal": {"max_delay": 0.01}}
overrides["tracking"] = {"linger": float(os.environ.get("LINGER", "20"))}
session = SessionManager(load_config(overrides=overrides), run_name="r")
session.setup_directories()
options = eval(os.environ.get("OPTIONS", "{}"))
print("started", session.setup_remote_logging("lines", **options), flush=True)
step = 0
while step < int(os.environ.get("STEPS", "1000000000")):
    session.log_metrics({"loss": 1.0}, step=step)
    step += 1
    if step % 100 == 0:
        session.flush()
        print(step, flush=True)
end = os.environ.get("END", "")
if end:
    session.finalize_session(end)
print("over", flush=True)
"""


def program_of(tmp_path: Path, **environ: str) -> subprocess.Popen[str]:
    """Start a program that logs to the tracker."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(tmp_path / "site"), str(tmp_path / "runs")],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        text=True,
    )


def read_until(program: subprocess.Popen[str], count: int) -> None:
    """Read what a program prints until it has logged so many rows."""
    assert program.stdout is not None
    while not (line := program.stdout.readline()).strip().isdigit() or int(line) < count:
        assert line


def logged_in(directory: str) -> list[tuple[int, int]]:
    """Return attempt and number of everything in a run's journals."""
    return [(row.attempt, row.seq) for row in read_run(directory).rows(include_superseded=True)]


@posix
@pytest.mark.requirement("HOST-3")
def test_a_program_that_is_killed_leaves_nothing_undone(tmp_path: Path) -> None:
    """The process sends what the journal has, tells the true end, and is gone."""
    directory = str(tmp_path / "runs" / "r")
    for attempt in range(1, 4):
        program = program_of(tmp_path)
        read_until(program, 300 * attempt)
        pid = int(Path(directory, "pid").read_text())
        Path(directory, "lines.end").unlink(missing_ok=True)
        program.kill()
        program.communicate(timeout=60)
        assert until(lambda: end_of(directory) == "failed")
        assert held(directory) == logged_in(directory)
        assert gone(pid)
    assert max(row[0] for row in logged_in(directory)) == 3


@posix
@pytest.mark.requirement("HOST-2", "HOST-3")
def test_a_resumed_run_waits_for_the_process_of_the_one_that_was_killed(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    """What the first attempt has left is sent by its own process, once, and then the second's."""
    program = program_of(tmp_path, OPTIONS="{'slow': 0.1}")
    read_until(program, 2000)
    program.kill()
    program.communicate(timeout=60)
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging("lines")
        session.log_metrics({"loss": 2.0})
    directory = session.run_artifact_dir
    assert held(directory) == logged_in(directory)
    assert held(directory)[-1] == (2, 0)
    assert end_of(directory) == "completed"


@pytest.mark.requirement("HOST-2")
def test_who_delivers_a_run_is_said(make_config: MakeConfig) -> None:
    """A tracker whose lock is held waits, and the summary says for whom."""
    session = SessionManager(make_config(tracking={"finish_timeout": 0.2, "linger": 0.0}))
    session.setup_directories()
    with OpenDirectory(session.run_artifact_dir) as directory:
        lock = cursor.deliverer(directory, "lines", 0.0)
        assert session._session is not None

        def problem() -> str:
            trackers = session.get_session_summary()["trackers"]
            return str(trackers.get("lines", {}).get("problem"))

        with lock, anyio.from_thread.start_blocking_portal() as portal:
            waiting = portal.start_task_soon(session._session.setup_remote_logging, "lines")
            assert until(lambda: f"process {os.getpid()} on host" in problem())
            assert "delivers the run to it" in problem()
            lock.release()
            assert waiting.result(60) is True
    assert session.finalize_session() == "completed"


@posix
@pytest.mark.parametrize(
    ("end", "options", "expected"),
    [
        ("completed", "{}", "completed"),
        ("preempted", "{}", "preempted"),
        ("", "{}", "completed"),  # never finalised: the exit does it
        ("", "{'hangs_in': 'start'}", None),
        ("", "{'hangs_in': 'send'}", None),
        ("", "{'hangs_in': 'finish'}", None),
    ],
)
@pytest.mark.requirement("HOST-3")
def test_the_exit_of_the_program_waits_for_nothing(
    tmp_path: Path, end: str, options: str, expected: str | None
) -> None:
    """Neither its own exit nor who reads its output waits for a tracker, whatever hangs."""
    stays = expected is None and "send" not in options
    linger = "600" if stays else "1"
    program = program_of(tmp_path, STEPS="100", END=end, OPTIONS=options, LINGER=linger)
    assert program.stdout is not None
    line = ""
    while not line.startswith("over"):
        line = program.stdout.readline()
        assert line
    assert program.communicate(timeout=60)[0] == ""  # to its end: nobody else holds it open
    assert program.returncode == 0
    directory = str(tmp_path / "runs" / "r")
    pid = int(Path(directory, "pid").read_text())
    if stays:
        assert not gone(pid, 0.0)  # so nobody has waited for its end
        os.kill(pid, signal.SIGKILL)
    if expected is not None:
        assert until(lambda: end_of(directory) == expected)
        assert held(directory) == [(1, n) for n in range(100)]
    assert gone(pid)


@posix
def test_signals_for_the_program_are_not_for_it(make_config: MakeConfig) -> None:
    """Whoever sends them to it, it goes on until the session's end."""
    with SessionManager(make_config()) as session:
        session.setup_remote_logging("lines")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            os.kill(pid_of(session), number)
        assert os.getpgid(pid_of(session)) != os.getpgid(0)
        session.log_metrics({"loss": 1.0})
    assert held(session.run_artifact_dir) == [(1, 0)]
    assert record_of(session)["trackers"]["lines"]["state"] == "finished"


@pytest.mark.parametrize("anyio_backend", TWO_BACKENDS)
async def test_what_is_wrong_is_told_as_it_was(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong option, a missing tracker and an error of a call, by their own names."""
    async with AsyncSessionManager(make_config()) as session:
        assert await session.setup_remote_logging("lines", no_such_option=1) is False
        assert "no_such_option" in caplog.text
        assert await session.setup_remote_logging("no-such-tracker") is False
        assert "no tracker is called 'no-such-tracker'; installed: lines" in caplog.text
    async with AsyncSessionManager(make_config(tracking={"finish_timeout": 0.5})) as session:
        assert await session.setup_remote_logging("lines", refuses=True) is True
        session.log_metrics({"loss": 1.0})
    known = record_of(session)["trackers"]["lines"]
    assert known["problem"] == "ConnectionError: the server is away"


@pytest.mark.parametrize("does", ["chdir", "flood"])
def test_a_tracker_that_misbehaves_loses_nothing(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, does: str
) -> None:
    """One that changes the directory, or logs without end, is a tracker like others."""
    with SessionManager(make_config()) as session:
        assert session.setup_remote_logging("lines", does=does) is True
        for _ in range(300):
            session.log_metrics({"loss": 1.0})
    assert held(session.run_artifact_dir) == [(1, n) for n in range(300)]
    if does == "flood":  # of 5,000 lines; how many depends on how soon each message is taken
        assert len(caplog.records) < 5_000
        assert "lines were left out" in caplog.text


def test_a_tracker_that_ends_its_process_again_and_again_is_one_warning(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again with backoff; the session goes on, and ends in time."""
    began = time.monotonic()
    with SessionManager(make_config(tracking={"finish_timeout": 0.5, "linger": 0.0})) as session:
        assert session.setup_remote_logging("lines", does="exit") is False
        session.log_metrics({"loss": 1.0})
    assert time.monotonic() - began < 20
    died, ended = warnings_in(caplog)
    assert "its process has ended (status 3)" in died
    assert "1 rows and events wait for it" in ended
    assert record_of(session)["trackers"]["lines"]["state"] == "abandoned"


@pytest.mark.skipif(os.name == "nt", reason="it is a shell's script")
def test_a_process_that_is_killed_at_its_start_is_said(
    make_config: MakeConfig,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """One warning that names the cause; the run goes on, and its rows wait."""
    monkeypatch.setattr(sys, "executable", script(tmp_path, "kill -9 $$"))
    with SessionManager(make_config(tracking={"finish_timeout": 0.2, "linger": 0.0})) as session:
        assert session.setup_remote_logging("lines") is False
        session.log_metrics({"loss": 1.0})
    assert "its process has ended (status -9)" in warnings_in(caplog)[0]
    assert record_of(session)["trackers"]["lines"]["behind"] == 1
    assert until(lambda: all(python != sys.executable for _, python, _ in client._hosts))


def script(directory: Path, text: str) -> str:
    """Make a program that is called like a Python, and return its path."""
    path = directory / "python3"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(os.name == "nt", reason="these are a shell's scripts")
@pytest.mark.parametrize("how", ["ends", "prints", "hangs", "missing", "forbidden", "no program"])
def test_what_is_no_python_although_it_is_called_like_one_is_found_out(
    make_config: MakeConfig,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    how: str,
) -> None:
    """It is started once, and ended; the tracker runs in the program, in later sessions at once."""
    does = {"prints": "while echo hello; do :; done", "hangs": "exec sleep 1000"}.get(how, "")
    path = script(tmp_path, f"echo $$ >> {tmp_path}/starts\n{does}")
    if how == "missing":
        os.unlink(path)
    elif how == "forbidden":
        os.unlink(path)
        os.mkdir(path)
    elif how == "no program":
        Path(path).write_text("hello")
    monkeypatch.setattr(sys, "executable", path)
    if how == "hangs":
        monkeypatch.setattr(client, "GREETING_TIMEOUT", 2.0)
    for number in range(2):
        with SessionManager(make_config(), run_name=f"r{number}") as session:
            assert session.setup_remote_logging("lines") is True
            session.log_metrics({"loss": 1.0})
        assert pid_of(session) == os.getpid()
        assert held(session.run_artifact_dir) == [(1, 0)]
    (said,) = warnings_in(caplog)
    assert "trackers run in the program" in said
    if how in ("ends", "prints", "hangs"):
        (pid,) = (tmp_path / "starts").read_text().split()
        assert gone(int(pid))


def test_a_program_that_is_started_as_a_trackers_process_ends_at_once() -> None:
    """It would train once more."""
    program = [sys.executable, "-c", "import keisei; print('trains')"]
    environ = {**os.environ, spawn.MARK: "1"}
    done = subprocess.run(program, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "in the place of a tracker's process" in done.stderr


def test_options_that_cannot_be_sent_are_said(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Another session's tracker of the same kind goes on, and it starts with better ones."""
    with SessionManager(make_config(), run_name="well") as well:
        assert well.setup_remote_logging("lines") is True
        with SessionManager(make_config(), run_name="r") as session:
            assert session.setup_remote_logging("lines", away=lambda: None) is False
            session.log_metrics({"loss": 1.0})
            assert session.setup_remote_logging("lines") is True
        well.log_metrics({"loss": 1.0})
    (said,) = warnings_in(caplog)
    assert "lines did not start (its options cannot be sent to its process" in said
    for each in (well, session):
        assert held(each.run_artifact_dir) == [(1, 0)]


@pytest.mark.parametrize("how", ["frozen", "embedded", "nameless", "inside"])
def test_a_program_without_a_python_of_its_own_runs_trackers_itself(
    make_config: MakeConfig,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """A frozen program, or a host whose `sys.executable` is no Python, must not start itself."""
    if how == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif how == "inside":
        monkeypatch.setattr(sys.modules["__main__"], "keisei_host_process", True, raising=False)
    else:
        monkeypatch.setattr(sys, "executable", "/opt/game/engine" if how == "embedded" else "")
    for number in range(2):
        with SessionManager(make_config(), run_name=f"r{number}") as session:
            assert session.setup_remote_logging("lines") is True
            session.log_metrics({"loss": 1.0})
        assert pid_of(session) == os.getpid()
        assert held(session.run_artifact_dir) == [(1, 0)]
    (said,) = warnings_in(caplog)
    assert "trackers run in the program" in said


START = "import runpy, sys; sys.argv[:] = ['p', *sys.argv[1:]]; runpy.run_path(sys.argv.pop(1))"


@pytest.mark.parametrize(
    "how",
    ["-c", "stdin", "file", "-m", "zipapp", "-I", "-P", "no main", "planted", "below", "removed"],
)
def test_it_starts_however_the_program_was_started(tmp_path: Path, how: str) -> None:
    """Also where keisei is only on the program's path, and where files are called like modules.

    The working directory may have been removed, and there may be no home.
    """
    there = tmp_path / "there"
    (there / "wandb").mkdir(parents=True)
    (there / "mlflow").mkdir()
    planted = ["queue", "random", "types", "logging", "typing", "json", "pickle", "lines"]
    planted += ["pathlib", "subprocess", "keisei", "site", "sitecustomize", "os", "io"]
    body = PROGRAM.replace("sys.path[:0] = sys.argv[1:3]", "sys.path += sys.argv[1:3]")
    arguments = [str(ROOT), str(tmp_path / "site"), str(tmp_path / "runs")]
    (there / "program.py").write_text(body)
    main = ["program.py"]
    if how == "-c":
        main = ["-c", body]
    elif how == "stdin":
        main = ["-"]
    elif how == "-m":
        main = ["-m", "program"]
    elif how == "zipapp":
        (tmp_path / "app").mkdir()
        (tmp_path / "app" / "__main__.py").write_text(body)
        zipapp.create_archive(tmp_path / "app", there / "app.pyz")
        main = ["app.pyz"]
    elif how in ("-I", "-P"):
        main = [how, "program.py"]
    elif how == "no main":
        main = ["-c", f"import sys; sys.modules.pop('__main__')\n{body}"]
    elif how == "removed":
        (there / "gone").mkdir()
        leave = "import os; os.chdir('gone'); os.rmdir(os.getcwd())"
        main = ["-c", f"{leave}; os.environ['HOME'] = '/no/such/home'\n{body}"]
    elif how in ("planted", "below"):
        main = ["-P", "program.py"] if how == "planted" else [str(there / "program.py")]
        where = there if how == "planted" else there / "below"
        where.mkdir(exist_ok=True)
        for name in planted:
            (where / f"{name}.py").write_text("import os; os._exit(77)\n")
    done = subprocess.run(
        [sys.executable, *main, *arguments],
        cwd=there / "below" if how == "below" else there,
        env={**os.environ, "STEPS": "100", "END": "completed"},
        input=body if how == "stdin" else None,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "started True" in done.stdout, done.stderr
    directory = str(tmp_path / "runs" / "r")
    assert held(directory) == [(1, n) for n in range(100)]
    assert end_of(directory) == "completed"


def test_the_path_of_the_script_comes_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is installed is found first; what only the program's directory has is found still."""
    here, installed = str(tmp_path / "here"), sys.path[-1]
    monkeypatch.setattr(sys, "path", ["", here, installed])
    path = spawn.import_path(here)
    assert path == [installed, here + os.sep, here]


def test_a_run_directory_that_vanishes_is_said(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The tracker's process goes on for other runs, and the session ends with one warning."""
    config = make_config(
        journal={"max_delay": 0.0}, tracking={"finish_timeout": 0.5, "linger": 0.0}
    )
    with SessionManager(config, run_name="well") as well:
        well.setup_remote_logging("lines")
        with SessionManager(config, run_name="r") as session:
            session.setup_remote_logging("lines")
            session.log_metrics({"loss": 1.0})
            session.flush()
            assert until(lambda: held(session.run_artifact_dir))
            os.rename(session.run_artifact_dir, tmp_path / "moved")
            session.log_metrics({"loss": 2.0})
        well.log_metrics({"loss": 1.0})
    assert held(well.run_artifact_dir) == [(1, 0)]
    assert len([text for text in warnings_in(caplog) if text.startswith("lines")]) <= 1


def test_a_full_disk_under_the_cursor_loses_no_row(
    make_config: MakeConfig, tiny_disk: Path
) -> None:
    """The tracker's own account keeps rows from coming twice where no cursor can be stored."""
    config = make_config(logging={"log_dir": str(tiny_disk)}, journal={"max_delay": 0.0})
    with SessionManager(config, run_name="r") as session:
        session.setup_remote_logging("lines")
        session.log_metrics({"loss": 1.0})
        session.flush()
        assert until(lambda: held(session.run_artifact_dir) == [(1, 0)])
        filler = tiny_disk / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 512)
            except OSError:
                pass
        for _ in range(50):
            session.log_metrics({"loss": 1.0})
        filler.unlink()
        session.flush()
    assert held(session.run_artifact_dir) == [(1, n) for n in range(51)]


@posix
@pytest.mark.requirement("HOST-1")
def test_a_forked_child_does_not_keep_the_process(make_config: MakeConfig) -> None:
    """A child has no part in it: the process ends with the program, although the child lives on."""
    with SessionManager(make_config()) as session:
        session.setup_remote_logging("lines")
        assert "returned {}" in in_child(lambda: client._hosts)
        session.log_metrics({"loss": 1.0})
    assert held(session.run_artifact_dir) == [(1, 0)]


def test_two_of_a_kind_have_names_of_their_own(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """By the config and by a call; one that tracks the run already is not started twice unsaid."""
    boards = {name: {"tracker": "tensorboard", "log_dir": str(tmp_path / name)} for name in "ab"}
    with SessionManager(make_config(tracking={"trackers": boards}), run_name="r") as session:
        assert session.setup_remote_logging("a", **boards["a"]) is True  # the same one
        assert session.setup_remote_logging("a", tracker="lines") is False
        assert session.setup_remote_logging("second", tracker="lines") is True
        assert session.setup_remote_logging("mine", tracker="wandb") is False
        session.log_metrics({"loss": 1.0}, step=1)
    assert held(session.run_artifact_dir) == [(1, 0)]
    for name in "ab":
        assert len(list((tmp_path / name / "r").glob("events*"))) == 1
    states = {n: t["state"] for n, t in record_of(session)["trackers"].items()}
    assert states == {"a": "finished", "b": "finished", "second": "finished"}
    said = warnings_in(caplog)
    assert len(said) == 2
    assert all("Give it a name of its own" in text for text in said)
    with pytest.raises(ConfigError, match="the options of wandb belong to the section"):
        make_config(tracking={"trackers": {"mine": {"tracker": "wandb"}}})


def test_it_runs_the_keisei_of_the_program(tmp_path: Path) -> None:
    """A program in a checkout of its own has that one on both sides, whatever is installed."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "keisei", checkout / "keisei")
    (checkout / "tests").symlink_to(ROOT / "tests")
    with open(checkout / "keisei" / "trackers" / "host" / "process.py", "a") as file:
        file.write("open(os.path.join(sys.argv[0]), 'a').close()\nimport sys\n" * 0)
    own = checkout / "keisei" / "trackers" / "loading.py"
    own.write_text(own.read_text() + f"\nopen({str(tmp_path / 'seen')!r}, 'a').write('x')\n")
    body = PROGRAM.replace("sys.argv[1:3]", "sys.argv[2:3]")
    done = subprocess.run(
        [sys.executable, "-c", body, str(checkout), str(tmp_path / "site"), str(tmp_path / "runs")],
        cwd=checkout,
        env={**os.environ, "STEPS": "100", "END": "completed"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "started True" in done.stdout, done.stderr
    assert (tmp_path / "seen").read_text() == "xx"  # here, and in the host process
    assert held(str(tmp_path / "runs" / "r")) == [(1, n) for n in range(100)]
