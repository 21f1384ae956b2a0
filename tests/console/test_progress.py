"""The line of progress: in a terminal it is there and harms nothing, elsewhere it is not there."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from rich.console import Console
from rich.text import Text

from keisei import AsyncSessionManager, SessionManager
from keisei.console import progress
from tests.conftest import MakeConfig

SHOWN = "keisei-progress"


def seen(text: str) -> str:
    """Return a terminal's text without its escape sequences."""
    return re.sub(r"\x1b(\[[0-9;]*[A-Za-z]|[78D])", " ", text)


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it, and takes its time to give lines back."""

    def write(self, text: str) -> int:
        """Keep it."""
        if "\x1b[r" in text:
            threading.Event().wait(0.05)
        return super().write(text)

    def isatty(self) -> bool:
        """Answer that it is one."""
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """The process's stderr, a terminal."""
    if sys.platform == "win32":
        pytest.skip("what rich draws there depends on the console that the tests have")
    there = Terminal()
    # Not in `sys` itself, where pytest puts its own one again before the test.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=there, platform=sys.platform))
    monkeypatch.setattr(progress, "PAUSE", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "24")
    for name in ("CI", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return there


def console(width: int = 100, height: int = 10) -> Console:
    """Make a console of rich's on a text."""
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, legacy_windows=False
    )


def written(screen: Console) -> str:
    """Return what was written to a console on a text."""
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def plain(lines: list[Text]) -> list[str]:
    """Return lines without their colours."""
    return [line.plain for line in lines]


def recorder(session: SessionManager[Any]) -> progress.Progress:
    """Make what reads a session's journal."""
    return progress.Progress(session._recorder, session._facts)


def test_what_a_line_says(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, step of all steps, speed, time to go, and the latest metrics, made harmless."""
    monkeypatch.setenv("STORE_PASSWORD", "canary-environment")
    with SessionManager(
        make_config(training={"total_timesteps": 2000}), run_name="walker"
    ) as session:
        shown = recorder(session)
        assert plain(progress.lines_of([shown], 100)) == []  # nothing has been logged
        for step in (10, 500):
            session.log_metrics(
                {"loss": 0.25, "huge": 10**400, "\x1b[2Jcanary-environment": step, "fourth": 1},
                step,
            )
            session.flush()
            (line,) = plain(progress.lines_of([shown], 100))
        session.log_metrics({"loss": 0.125})
        session.flush()
        (line,) = plain(progress.lines_of([shown], 100))
        shown.close()
    assert re.fullmatch(
        r"walker  500/2,000 \(25%\)  [\d,.]+ steps/s  ETA [\d:]+  "
        r"loss 0\.125  huge inf  \\x1b\[2J\*+ 500",
        line,
    )


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_shows_the_time_to_go_and_a_metric(
    make_config: MakeConfig, width: int
) -> None:
    """The name is cut first, then the speed goes, then the metrics but the first one."""
    config = make_config(training={"total_timesteps": 20_000_000})
    with SessionManager(config) as session:  # with a generated name
        shown = recorder(session)
        for step in (10, 5_000_000):
            session.log_metrics({"train/mean_return": 195.5, "loss": 1.0, "lr": 0.003}, step)
            session.flush()
            (line,) = progress.lines_of([shown], width)
        shown.close()
    assert line.cell_len < max(width, 42)  # the least of the name, the steps and their share
    assert line.plain.startswith(session.run_name[:10])
    assert "5,000,000/20,000,000 (25%)" in line.plain
    assert ("ETA " in line.plain) == (width > 40)
    assert ("train/mean_return 195.5" in line.plain) == (width == 80)


def test_training_that_goes_back_and_rows_without_steps(make_config: MakeConfig) -> None:
    """The speed is measured anew; without a step there are the metrics alone."""
    with SessionManager(make_config(), run_name="r") as session:
        shown = recorder(session)
        said = []
        for values, step in [({"a": 1}, None), ({"a": 2}, 50), ({"a": 3}, 10)]:
            session.log_metrics(values, step)
            session.flush()
            said += plain(progress.lines_of([shown], 100))
        shown.close()
    assert said == ["r  a 1", "r  50/1,000,000 (0%)  a 2", "r  10/1,000,000 (0%)  a 3"]


def test_many_sessions_share_a_few_lines(make_config: MakeConfig) -> None:
    """Those that log are shown in their order, at most four, and the rest is counted."""
    sessions = [SessionManager(make_config(), run_name=f"s{number}") for number in range(8)]
    for session in sessions:
        session.setup_directories()
    for session in sessions[1:]:
        session.log_metrics({"a": 1}, 1)
        session.flush()
    shown = [recorder(session) for session in sessions]
    lines = plain(progress.lines_of(shown, 100))
    assert [line.split()[0] for line in lines[:4]] == ["s1", "s2", "s3", "s4"]
    assert lines[4:] == ["and 3 more"]
    for one, session in zip(shown, sessions, strict=True):
        one.close()
        session.finalize_session()


def test_the_lines_stand_below_what_scrolls() -> None:
    """Room is made below the cursor, long lines are cut, and at the end all is given back."""
    on = console(width=20, height=10)
    screen = progress.Screen(on)
    screen.draw([Text("first"), Text("s" * 50)])
    screen.draw([Text("again"), Text("short")])
    screen.draw([Text("one")])
    screen.clear()
    screen.clear()
    text = written(on)
    assert text.count("\x1b[1;8r") == text.count("\x1b[1;9r") == 1
    assert text.count("\x1b[r") == 2
    assert "\x1b[9;1H\x1b[2Kfirst" in text
    assert "\x1b[10;1H\x1b[2K" + "s" * 18 + "\u2026" in text
    assert text.endswith("\x1b7\x1b[r\x1b[10;1H\x1b[2K\x1b8")
    assert "\n" not in text


def test_a_terminal_too_small_is_left_alone() -> None:
    """With no room to spare nothing is drawn."""
    on = console(height=3)
    screen = progress.Screen(on)
    screen.draw([Text("one")])
    screen.clear()
    assert written(on) == ""


async def test_a_session_shows_itself(make_config: MakeConfig, terminal: Terminal) -> None:
    """From its first row to its end; then the terminal is as it was, and the thread is gone."""
    async with AsyncSessionManager(make_config(), run_name="walker") as session:
        assert terminal.getvalue() == ""
        session.log_metrics({"loss": 0.5}, 10)
        with anyio.fail_after(60):
            while "walker" not in terminal.getvalue():
                await anyio.sleep(0.005)
    text = terminal.getvalue()
    assert "walker 10/1,000,000" in " ".join(seen(text).split())
    assert text.count("r\x1b8") == text.count("\x1b[r") == 1
    assert text.endswith("\x1b[24;1H\x1b[2K\x1b8")
    for thread in threading.enumerate():
        if thread.name == SHOWN:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_end_erases_the_line(
    make_config: MakeConfig, terminal: Terminal, error: type[BaseException] | None
) -> None:
    """Before the block is left, however it is; a session that logs nothing draws nothing."""
    with SessionManager(make_config()):
        pass
    try:
        with SessionManager(make_config()) as session:
            session.log_metrics({"loss": 0.5}, 10)
            pause = threading.Event()
            for _ in range(2000):
                if "loss" in terminal.getvalue():
                    break
                pause.wait(0.005)
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        assert error is not None
    text = terminal.getvalue()
    assert text.count("r\x1b8") == text.count("\x1b[r") == 1
    assert text.endswith("\x1b[24;1H\x1b[2K\x1b8")


def test_the_config_can_say_no(make_config: MakeConfig, terminal: Terminal) -> None:
    """Then there is not even a thread."""
    with SessionManager(make_config(logging={"progress": False})) as session:
        session.log_metrics({"loss": 0.5}, 10)
        assert not [t for t in threading.enumerate() if t.name == SHOWN]
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("setting", [{"CI": "true"}, {"TERM": "dumb"}, {"TERM": "unknown"}])
def test_it_is_silent_where_nobody_reads_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    """In a CI's log, and in a terminal that knows no escape sequences."""
    assert progress.in_terminal()
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert not progress.in_terminal()


def test_it_is_silent_where_there_is_no_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, one that is closed, and none at all."""
    closed = io.StringIO()
    closed.close()
    for stream in (io.StringIO(), closed, None):
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream, platform=sys.platform))
        assert not progress.in_terminal()


def test_it_is_silent_without_rich(
    make_config: MakeConfig, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session goes on, and the thread waits for its end."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with SessionManager(make_config()) as session:
        session.log_metrics({"loss": 0.5}, 10)
        session.flush()
    assert session.status == "completed"
    assert terminal.getvalue() == ""


PROGRAM = """
import contextlib, logging, os, sys, threading, time
from keisei import AppConfig, SessionManager
from keisei.console import progress
progress.PAUSE = 0.01
logging.basicConfig(stream=sys.stderr, format="%(message)s")
error, read = sys.argv[1], int(sys.argv[2])

with contextlib.suppress(BaseException):
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(SessionManager(AppConfig(), run_name="walker"))
        session.log_metrics({"loss": 0.5}, 10)
        sys.stdout.write("half a ")
        sys.stdout.flush()
        os.read(read, 1)  # until the terminal shows it
        print("line")
        logging.warning("said by a handler")
        os.system("echo said by a child")
        if error == "forgotten":
            left = stack.pop_all()
        elif error:
            raise {"ValueError": ValueError, "KeyboardInterrupt": KeyboardInterrupt}[error]
print("after", "rich" in sys.modules)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "forgotten"])
def test_in_a_terminal_prints_stay_whole(tmp_path: Path, error: str) -> None:
    """The program's own words, a log handler's and a child's come out as they were written."""
    import pty

    leader, follower = pty.openpty()
    read, write = os.pipe()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "24"}
    for name in ("CI", "FORCE_COLOR", "TTY_COMPATIBLE"):
        environ.pop(name, None)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, error, str(read)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=tmp_path,
        env=environ,
        pass_fds=[read],
    ) as process:
        os.close(follower)
        output, told = b"", False
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            output += part
            if not told and b"loss" in output:
                told = True
                os.write(write, b"!")
    for fd in (leader, read, write):
        os.close(fd)
    assert process.returncode == 0
    text = output.decode()
    drawn = r"\x1b7\x1b\[24;1H\x1b\[2K.*?\x1b8"
    opened, closed = r"\x1bD\x1b\[1A\x1b7\x1b\[1;23r\x1b8", r"\x1b7\x1b\[r\x1b\[24;1H\x1b\[2K\x1b8"
    assert re.search(drawn, text) is not None
    assert [len(re.findall(what, text)) for what in (opened, closed)] == [1, 1]
    own = "half a line\r\nsaid by a handler\r\nsaid by a child\r\nafter True\r\n"
    shown = re.sub(f"{closed}|{opened}|{drawn}", "", text)
    assert shown.startswith(own)
    assert len(shown[len(own) :].splitlines()) == (error == "forgotten")  # its warning


def test_in_a_pipe_there_is_nothing(tmp_path: Path) -> None:
    """Not even rich is imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("os.system", "str"), "", "0"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    )
    assert done.stdout == "half a line\nafter False\n"
    assert done.stderr == "said by a handler\n"
