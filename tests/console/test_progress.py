"""The line of progress: in a terminal it is there and harms nothing, elsewhere it is not there."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from keisei import AsyncSessionManager, SessionManager
from keisei.console import progress
from tests.conftest import MakeConfig
from tests.support.terminal import Terminal

SHOWN = "keisei-progress"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")


class Stream(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        """Answer that it is one."""
        return True


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """The process's stdout and stderr, a terminal."""
    if sys.platform == "win32":
        pytest.skip("what rich draws there depends on the console that the tests have")
    there = Stream()
    # Not in `sys` itself, where pytest puts its own ones again before the test.
    streams = SimpleNamespace(stderr=there, stdout=None, platform=sys.platform)
    monkeypatch.setattr(progress, "sys", streams)
    monkeypatch.setattr(progress, "PAUSE", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("CI", "FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return there


def gone() -> bool:
    """Wait for the threads that draw."""
    for thread in threading.enumerate():
        if thread.name == SHOWN:
            thread.join(60)
    return not [thread for thread in threading.enumerate() if thread.name == SHOWN]


def recorder(session: SessionManager[Any]) -> progress.Progress:
    """Make what reads a session's journal."""
    return progress.Progress(session._recorder, session._facts)


def looked(shown: progress.Progress, width: int) -> str:
    """Return the line after another look."""
    shown.look()
    return shown.text(width).plain


def test_what_a_line_says(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, step of all steps, time to go, speed, and the latest metrics, made harmless."""
    monkeypatch.setenv("STORE_PASSWORD", "canary-environment")
    with SessionManager(
        make_config(training={"total_timesteps": 2000}), run_name="walker"
    ) as session:
        shown = recorder(session)
        shown.look()
        assert not shown.shown  # nothing has been logged
        for step in (10, 500):
            session.log_metrics(
                {"loss": 0.25, "huge": 10**400, "\x1b[2Jcanary-environment": step, "fourth": 1},
                step,
            )
            session.flush()
            looked(shown, 120)
        session.log_metrics({"loss": 0.125})
        session.flush()
        line = looked(shown, 120)
        shown.close()
    assert re.fullmatch(
        r"walker  500/2,000 \(25%\)  ETA [\d:]+  [\d,.]+ steps/s  "
        r"loss 0\.125  huge inf  \\x1b\[2J\*+ 500",
        line,
    )


@pytest.mark.parametrize("width", [20, 40, 60, 120])
def test_a_narrow_terminal_shows_what_matters_most(make_config: MakeConfig, width: int) -> None:
    """The name is cut, then the metrics go, then the speed and the time to go."""
    config = make_config(training={"total_timesteps": 20_000_000})
    with SessionManager(config, run_name="walker-" * 8 + "x") as session:
        shown = recorder(session)
        for step in (10, 5_000_000):
            session.log_metrics({"train/mean_return": 195.5, "loss": 1.0}, step)
            session.flush()
            shown.look()
        line = shown.text(width)
        shown.close()
    assert line.cell_len <= width
    assert line.plain.startswith("walker-wal")
    assert ("5,000,000/20,000,000" in line.plain) == (width > 20)
    assert ("ETA " in line.plain) == (width > 40)
    assert ("steps/s" in line.plain) == (width > 60)


@pytest.mark.parametrize("set_by", [3 * 86400.0, -3600.0])
def test_a_clock_that_is_set_changes_neither_speed_nor_time_to_go(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, set_by: float
) -> None:
    """Both are by a clock that nobody sets."""
    steady, ahead = 1000.0, 1.7e9
    for room in ("journal.writer", "console.progress"):
        monkeypatch.setattr(f"keisei.{room}.time", lambda: steady + ahead)
    monkeypatch.setattr("keisei.console.progress.monotonic", lambda: steady)
    config = make_config(training={"total_timesteps": 1000})
    with SessionManager(config, run_name="r") as session:
        shown = recorder(session)
        for step in (100, 300):
            session.log_metrics({"loss": 1.0}, step)
            session.flush()
            line = looked(shown, 120)
            steady, ahead = steady + 10.0, ahead + set_by
        shown.close()
    assert "ETA 0:00:35  20.0 steps/s" in line


def test_training_that_goes_back_and_rows_without_steps(make_config: MakeConfig) -> None:
    """The speed is measured anew; without a step there are the metrics alone."""
    with SessionManager(make_config(), run_name="r") as session:
        shown = recorder(session)
        said = []
        for values, step in [({"a": 1}, None), ({"a": 2}, 50), ({"a": 3}, 10)]:
            session.log_metrics(values, step)
            session.flush()
            said.append(looked(shown, 100))
        shown.close()
    assert said == ["r  a 1", "r  50/1,000,000 (0%)  a 2", "r  10/1,000,000 (0%)  a 3"]


async def test_a_session_shows_itself(make_config: MakeConfig, stream: Stream) -> None:
    """From its first row to its end; then the stream is as it was, and the thread is gone."""
    config = make_config(logging={"progress": True})
    async with AsyncSessionManager(config, run_name="walker") as session:
        assert stream.getvalue() == ""
        session.log_metrics({"loss": 0.5}, 10)
        with anyio.fail_after(60):
            while "walker" not in stream.getvalue():
                await anyio.sleep(0.005)
    assert await anyio.to_thread.run_sync(gone)
    text = stream.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", text).count("walker  10/1,000,000") >= 1
    assert text.endswith("\r\x1b[K")
    assert not re.search(r"\x1b(?!\[(K|[\d;]*m))", text)  # colours, and the line is erased
    assert "write" not in stream.__dict__


def test_several_sessions_share_the_line(make_config: MakeConfig, stream: Stream) -> None:
    """The first that logs is shown, the others that do are counted; when it ends, the next is."""
    config = make_config(logging={"progress": True})
    sessions = [SessionManager(config, run_name=f"s{number}") for number in range(4)]
    for session in sessions:
        session.setup_directories()
    pause = threading.Event()

    def wait_for(text: str) -> None:
        for _ in range(6000):
            if text in re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()):
                return
            pause.wait(0.01)
        raise AssertionError(stream.getvalue())

    try:
        for session in sessions:
            session.__enter__()
        for session in sessions[1:]:
            session.log_metrics({"a": 1}, 1)
            session.flush()
        wait_for("s1  1/1,000,000 (0%)  a 1  and 2 more")
    finally:
        for session in sessions[:3]:
            session.__exit__(None, None, None)
        wait_for("\r\x1b[Ks3  1/1,000,000 (0%)  a 1")
        sessions[3].__exit__(None, None, None)
    assert gone()


@pytest.mark.parametrize("setting", [{}, {"progress": False}])
def test_it_is_there_where_the_config_asks_for_it(
    make_config: MakeConfig, stream: Stream, setting: dict[str, bool]
) -> None:
    """Else there is not even a thread."""
    with SessionManager(make_config(logging=setting)) as session:
        session.log_metrics({"loss": 0.5}, 10)
        assert not [t for t in threading.enumerate() if t.name == SHOWN]
    assert stream.getvalue() == ""


@pytest.mark.parametrize("setting", [{"CI": "true"}, {"TERM": "dumb"}, {"TERM": "unknown"}])
def test_it_is_silent_where_nobody_reads_it(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    """In a CI's log, and in a terminal that knows no escape sequences."""
    assert progress.in_terminal()
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert not progress.in_terminal()


def test_it_is_silent_where_there_is_no_terminal(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, one that is closed, and none at all."""
    closed = io.StringIO()
    closed.close()
    for other in (io.StringIO(), closed, None):
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=other, platform=sys.platform))
        assert not progress.in_terminal()


def test_it_is_silent_without_rich(
    make_config: MakeConfig,
    stream: Stream,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The session goes on, and one debug line says why there is none."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    config = make_config(logging={"progress": True, "log_level": "debug"})
    with caplog.at_level(logging.DEBUG, "keisei"), SessionManager(config) as session:
        session.log_metrics({"loss": 0.5}, 10)
        session.flush()
    assert gone()
    assert session.status == "completed"
    assert stream.getvalue() == ""
    assert [r.levelname for r in caplog.records if "keisei[console]" in r.message] == ["DEBUG"]


PROGRAM = """
import contextlib, logging, os, sys, threading, time
from keisei import AppConfig, LoggingConfig, SessionManager
from keisei.console import progress
progress.PAUSE = 0.01
logging.basicConfig(stream=sys.stderr, format="%(message)s")
error = sys.argv[1]
config = AppConfig(logging=LoggingConfig(progress=True))

sys.stdout.write("half a ")
sys.stdout.flush()
with contextlib.suppress(BaseException):
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(SessionManager(config, run_name="walker"))
        session.log_metrics({"loss": 0.5}, 10)
        if error:
            while not os.path.exists("shown"):  # the line, in the terminal
                time.sleep(0.01)
        print("line")
        logging.warning("said by a handler")
        for percent in (10, 20, 30):
            print(f"\\rbar {percent}%", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        if error == "killed":
            while True:
                print("a whole line", flush=True)
                logging.warning("another one")
        if error == "forgotten":
            left = stack.pop_all()
        elif error:
            raise {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}[error]
print("after", "rich" in sys.modules)
"""


@POSIX
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "forgotten"])
def test_in_a_terminal_prints_stay_whole(tmp_path: Path, error: str) -> None:
    """What the program, a log handler of before and a bar write comes out as it was written."""
    with Terminal(["-c", PROGRAM, error], tmp_path) as terminal:
        # A line that was begun before keisei looked is left alone: the figures stand below it.
        terminal.until(lambda: "walker  10/1,000,000 (0%)  loss 0.5" in terminal.lines)
        assert terminal.lines[0] == "half a"
        (tmp_path / "shown").touch()
        assert terminal.end() == 0
        kept = [line for line in terminal.lines if line]
        assert not terminal.screen.cursor.hidden
    said = ["half a", "line", "said by a handler", "bar 30%", "after True"]
    assert kept[: len(said)] == said
    assert ("run walker was not ended" in "".join(kept[len(said) :])) == (error == "forgotten")
    assert not re.search(rb"\x1b(?!\[(K|[\d;]*m))", terminal.output)


@POSIX
def test_a_kill_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    """Whenever it comes: no mode is set, and what is printed next stands where it should."""
    with Terminal(["-c", PROGRAM, "killed"], tmp_path) as terminal:
        terminal.until(lambda: b"loss" in terminal.output)
        (tmp_path / "shown").touch()
        terminal.until(lambda: terminal.output.count(b"a whole line") > 2000)
        terminal.process.send_signal(signal.SIGKILL)
        assert terminal.end() == -signal.SIGKILL
        screen, lines = terminal.screen, terminal.lines
    assert screen.margins is None
    assert not screen.cursor.hidden
    assert set(lines[:-2]) == {"a whole line", "another one"}
    assert not re.search(rb"\x1b(?!\[(K|[\d;]*m))", terminal.output)


@POSIX
def test_without_colours_and_after_a_resize(tmp_path: Path) -> None:
    """NO_COLOR leaves the erasing alone; the line is as wide as the terminal is then."""
    with Terminal(["-c", PROGRAM, "forgotten"], tmp_path, env={"NO_COLOR": "1"}) as terminal:
        terminal.until(lambda: "walker  10/1,000,000 (0%)  loss 0.5" in terminal.lines)
        terminal.resize(30, 24)
        terminal.until(lambda: "walker  10/1,000,000 (0%)  l…" in terminal.lines[-1])
        terminal.resize(100, 24)
        terminal.until(lambda: terminal.lines[-1].endswith("loss 0.5"))
    assert not re.search(rb"\x1b\[[\d;]*[34]\dm", terminal.output)


def test_in_a_pipe_there_is_nothing(tmp_path: Path) -> None:
    """Not even rich is imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ""],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "TERM": "xterm"},
    )
    assert done.stdout == b"half a line\nafter False\n"
    assert done.stderr == b"said by a handler\n\rbar 10%\rbar 20%\rbar 30%\n"
