"""The commands in a terminal: lists that fit, a list that refreshes, a log with colours."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keisei import SessionManager
from keisei.cli.log_lines import LONGEST, for_terminal
from keisei.run import labels
from tests.conftest import MakeConfig
from tests.support.terminal import Terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
NOTE = "the one with the larger batches, as the smaller ones did not do"
PROGRAM = "from keisei.cli import main; main()"
# Colours, the other screen, the cursor, and what moves it: nothing else may come out.
ALLOWED = rb"\x1b(?!\[([\d;]*[mABCDHJK]|\?(1049|25)[hl]))"


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Path:
    """A run with a note and a log with all levels, and one that has failed."""
    with SessionManager(make_config(), run_name="walker-seed1") as session:
        logger = logging.getLogger("tests.train")
        logger.setLevel(logging.DEBUG)
        handler = session.log_handler()
        logger.addHandler(handler)
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(logger, level)("a \x1b[2J\u202e%s", level)
        logger.removeHandler(handler)
        session.log_metrics({"loss": 0.5, "\x1b[31mhostile\u202e": 1.0, **_many()}, step=7)
    with SessionManager(make_config(), run_name="walker-seed2") as session:
        session.log_metrics({"loss": 0.5}, step=7)
        session.finalize_session("failed")
    return tmp_path / "runs"


def _many() -> dict[str, float]:
    return {f"train/metric-{number}": number * 1.0 for number in range(20)}


def terminal(runs: Path, columns: int, *arguments: str, **env: str) -> Terminal:
    """Start a command in a terminal of so many columns."""
    command = ["-c", PROGRAM, arguments[0], "--root", str(runs), *arguments[1:]]
    return Terminal(command, runs.parent, columns, 24, env)


def ended(runs: Path, columns: int, *arguments: str, **env: str) -> Terminal:
    """Return a terminal in which a command has ended well."""
    with terminal(runs, columns, *arguments, **env) as shown:
        assert shown.end() == 0, shown.lines
    assert not re.search(ALLOWED, shown.output)
    assert b"\xe2\x80\xae" not in shown.output  # a right-to-left mark
    return shown


def test_a_list_has_the_columns_that_fit(runs: Path) -> None:
    """One line for each run with its whole name and state, whatever its note."""
    labels.change_labels(
        str(runs / "walker-seed1"),
        lambda known: labels.noted(labels.tagged(known, ["ppo", "best"]), NOTE),
    )
    widths = {
        30: "name status",
        40: "name status",
        60: "name status attempt started duration",
        80: "name status attempt started duration tags",
        100: "name status attempt started duration tags note",
    }
    for columns, there in widths.items():
        shown = ended(runs, columns, "ls").lines
        assert shown[0].split() == there.split()
        assert [line.split()[:2] for line in shown[1:3]] == [
            ["walker-seed2", "failed"],
            ["walker-seed1", "completed"],
        ]
        assert shown[3].startswith("2 runs: ")
        assert len(shown) == 4
    for columns in (30, 100):
        chosen = ended(runs, columns, "ls", "-c", "name,note").lines
        assert [line.split()[0] for line in chosen[:3]] == ["name", "walker-seed2", "walker-seed1"]


def test_a_watched_list_refreshes_until_ctrl_c(runs: Path, make_config: MakeConfig) -> None:
    """A run that starts appears; Ctrl-C ends it well, and the last list and the cursor stay."""
    with terminal(runs, 80, "ls", "--watch") as shown:
        shown.until(lambda: any("2 runs: " in line for line in shown.lines))
        with SessionManager(make_config(), run_name="walker-seed3"):
            shown.until(lambda: "walker-seed3  running" in "\n".join(shown.lines))
            shown.process.send_signal(signal.SIGINT)
            assert shown.end() == 0
    assert not re.search(ALLOWED, shown.output)
    watched, left, behind = shown.output.partition(b"\x1b[?1049l")
    assert (watched.count(b"\x1b[?1049h"), bool(left)) == (1, True)
    kept = re.sub(r"\x1b\S*?[A-Za-z]", "", behind.decode())
    names = ["name", "walker-seed3", "walker-seed2", "walker-seed1"]
    assert [line.split()[0] for line in kept.splitlines()[:4] if line] == names
    assert not shown.screen.cursor.hidden


def test_without_a_terminal_a_watched_list_is_printed_once(runs: Path) -> None:
    """In a pipe it does not go on for ever, and a whole note is there."""
    command = [sys.executable, "-c", PROGRAM, "ls", "--watch", "--root", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("2 runs: ")
    assert "\x1b" not in done.stdout


def test_tail_colours_a_line_by_its_level(runs: Path) -> None:
    """In a terminal, with the time that a clock on the wall has; not with NO_COLOR."""
    shown = ended(runs, 200, "tail", "walker-seed1", "--no-follow", "--log")
    seen = shown.output.decode()
    for level, style in [("DEBUG", 2), ("WARNING", 33), ("ERROR", 31), ("CRITICAL", "1;31")]:
        assert f"\x1b[{style}m{level} tests.train: a \\x1b[2J\\u202e" in seen
    assert "\x1b[36msession started: run walker-seed1" in seen
    assert re.match(r"log  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d session started: ", shown.lines[0])
    seen = ended(
        runs, 80, "tail", "walker-seed1", "--no-follow", "--log", NO_COLOR="1"
    ).output.decode()
    assert not re.search(r"\x1b\[[\d;]*3\dm", seen)


def test_tail_in_a_pipe_is_plain(runs: Path) -> None:
    """Lines stay as they are in the file, but for what a terminal would obey."""
    command = [sys.executable, "-c", PROGRAM, "tail", "walker-seed1", "--root", str(runs)]
    done = subprocess.run([*command, "--no-follow", "--log"], capture_output=True, text=True)
    lines = (runs / "walker-seed1" / "training.log").read_text().splitlines()
    assert [line.removeprefix("log  ") for line in done.stdout.splitlines()] == [
        line.replace("\u202e", "\\u202e") for line in lines
    ]


def test_a_line_of_the_log_is_cut_in_a_terminal() -> None:
    """It does not fill the screen; lines that are not keisei's stay as they are."""
    line = for_terminal("x" * 100_000)
    assert line.plain == "x" * LONGEST + "  +99,000 characters"
    odd = "[2026-99-99T00:00:00+00:00] INFO x: y"
    assert [for_terminal(text).plain for text in ("", "[] x", odd)] == [
        "",
        "[] x",
        odd[1:26] + odd[27:],
    ]


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("command", ["show", "plot", "compare", "doctor"])
def test_hostile_names_are_harmless_at_any_width(runs: Path, command: str, columns: int) -> None:
    """Whatever names metrics have, nothing of them reaches the terminal as it is."""
    named = {"compare": ["walker-seed1", "walker-seed2"], "doctor": []}
    ended(runs, columns, command, *named.get(command, ["walker-seed1"]))
