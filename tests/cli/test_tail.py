"""`keisei tail`: what a run logs, shown as it comes, until it has ended."""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from keisei import SessionManager
from keisei.cli import tail as _tail  # noqa: F401 - registers the command
from keisei.cli.program import app
from keisei.cli.tail_reader import LogTail, RowsTail
from tests.conftest import MakeConfig
from tests.support.runs import Runs

LIMIT = 20.0  # seconds that a line may take
HOSTILE = "[red]日本\n\x1b[31m\u202ekey"

Session = Callable[[str], SessionManager[Any]]


@pytest.fixture
def session(make_config: MakeConfig) -> Session:
    """Make a session of a run of some name."""
    return lambda name: SessionManager(make_config(), run_name=name)


@pytest.fixture
def lived(session: Session, tmp_path: Path) -> Path:
    """A run of two attempts, of which the second has done some steps again."""
    for steps in (range(8), range(6, 10)):
        with session("r") as run:
            for step in steps:
                run.log_metrics({"loss": step / 8, "lr": 0.001}, step)
                if step % 3 == 0:
                    run.log_metrics({"eval/score": step}, step)
    return tmp_path / "runs" / "r"


def tail(*arguments: str) -> Result:
    """Run the command in this process, on a run that has ended."""
    return CliRunner().invoke(app, ["tail", "--root", "runs", *arguments], env={"COLUMNS": "60"})


class Follower:
    """A process that follows a run; its lines are read with a deadline."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from keisei.cli import main; main()", "tail", *arguments],
            env={**os.environ, "KEISEI_LOG_DIR": "runs"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("")

    def line(self) -> str:
        """Give the next line; an empty one at the end."""
        return self._lines.get(timeout=LIMIT)

    def until(self, part: str) -> list[str]:
        """Give the lines up to the first one that holds some text."""
        lines = [self.line()]
        while part not in lines[-1]:
            assert lines[-1], f"{part!r} is not in {lines}"
            lines.append(self.line())
        return lines

    def end(self) -> tuple[int, str]:
        """Wait for the end; gives the exit status and what was said as an error."""
        code = self.process.wait(LIMIT)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()


@pytest.fixture
def follow() -> Iterator[Callable[..., Follower]]:
    """Start followers, and end those that are left."""
    started: list[Follower] = []

    def start(*arguments: str) -> Follower:
        started.append(Follower(*arguments))
        return started[-1]

    yield start
    for follower in started:
        with follower.process:
            follower.process.kill()


def told(line: str) -> dict[str, Any]:
    """Read a line of JSON, strictly."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return found


def test_the_last_rows_and_lines_are_shown(lived: Path) -> None:
    """As they were logged, over all attempts: one line a row, few digits a number."""
    done = tail("r", "-n", "7")
    assert done.exit_code == 0
    assert done.stderr == "keisei tail: run 'r': completed\n"
    lines = done.stdout.splitlines()
    said = [line.partition(" session ")[2].partition(":")[0] or line for line in lines]
    assert said == [
        "started",
        "step 7  loss=0.875  lr=0.001",
        "ended",
        "started",
        "-- attempt 2",
        "step 6  loss=0.75  lr=0.001",
        "step 6  eval/score=6",
        "step 7  loss=0.875  lr=0.001",
        "step 8  loss=1  lr=0.001",
        "step 9  loss=1.125  lr=0.001",
        "step 9  eval/score=9",
        "ended",
    ]
    assert tail("r", "-n", "1", "--log", "--no-follow").stdout.splitlines() == lines[-1:]
    assert tail("r", "-n", "1", "--metrics", "--no-follow").stdout.splitlines() == lines[-2:-1]
    assert tail("r", "-n", "0").stdout == ""


def test_metrics_are_chosen_by_name_and_pattern(lived: Path) -> None:
    """Rows with none of them do not count among the last ones."""
    done = tail("r", "eval/*", "--metrics", "-n", "3", "--no-follow")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "step 6  eval/score=6",
        "-- attempt 2",
        "step 6  eval/score=6",
        "step 9  eval/score=9",
    ]
    done = tail("r", "lr", "--metrics", "-n", "1", "--no-follow")
    assert done.stdout == "step 9  lr=0.001\n"


@pytest.mark.requirement("CKPT-7")
def test_what_a_resumed_run_has_left_behind_is_not_shown(session: Session, tmp_path: Path) -> None:
    """The rows before its first ones are those that it goes on from."""
    with session("r") as run:
        for step in range(8):
            run.log_metrics({"loss": step / 8}, step)
    with session("r") as run:
        run.resume_at(4)
        run.log_metrics({"loss": 5.5}, 5)
    tail = RowsTail(str(tmp_path / "runs" / "r"))
    assert [row.step for row in tail.last(4)] == [2, 3, 4, 5]
    tail.close()


def test_a_metric_that_there_is_not_is_said(lived: Path) -> None:
    """With what is near, and exit status 1; the log is shown all the same."""
    done = tail("r", "losss")
    assert done.exit_code == 1
    assert "there is no metric 'losss': there is 'loss' and 2 more\n" in done.stderr
    assert done.stdout.count("session ended") == 2


def test_a_run_that_there_is_not_is_said(lived: Path) -> None:
    """In one line, with what there is."""
    done = tail("q")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "There is 'r'." in done.stderr
    assert tail(str(lived), "-n", "1").stdout.startswith("step 9  eval/score=9\n")


def test_json_is_valid_whatever_the_numbers(session: Session) -> None:
    """One object a line; what is not finite, or too large for a float, is a string."""
    values = {
        "nan": math.nan,
        "inf": math.inf,
        "low": -math.inf,
        "big": 2**100,
        "huge": 10**5000,
        "yes": True,
        HOSTILE: 0.1,
    }
    with session("r") as run:
        run.log_metrics(values, 2**70)
        run.log_metrics({"a": 1})
    done = tail("r", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    first, row, plain, last, end = map(told, done.stdout.splitlines())
    assert "session started" in first["line"]
    assert "session ended" in last["line"]
    assert first["kind"] == last["kind"] == "log"
    assert row["values"] == {
        "nan": "NaN",
        "inf": "Infinity",
        "low": "-Infinity",
        "big": 2**100,
        "huge": "Infinity",
        "yes": True,
        HOSTILE: 0.1,
    }
    assert (row["kind"], row["attempt"], row["seq"], row["step"]) == ("row", 1, 0, 2**70)
    assert isinstance(row["time"], float)
    assert (plain["seq"], plain["step"]) == (1, None)
    assert end == {"kind": "end", "state": "completed"}
    words = tail("r", "--metrics", "--no-follow").stdout
    assert "nan=nan inf=inf low=-inf big=1.268e+30 huge=inf yes=true" in " ".join(words.split())
    assert words.splitlines()[-1].split() == ["row", "1", "a=1"]


def test_nothing_hostile_reaches_the_terminal_raw(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a metric's name nor a line of the log; secrets are hidden."""
    monkeypatch.setenv("MY_API_KEY", "hunter2hunter2")
    with session("r") as run:
        run.log_metrics({HOSTILE: 1.0, "x" * 500: 2.0}, 1)
        with open(run.log_file_path, "ab") as file:
            file.write(b"\x1b]0;title\x07 [red]\xff hunter2hunter2\r\n")
    done = tail("r")
    assert done.exit_code == 0
    assert not set("\x1b\x07\u202e\r") & set(done.stdout)
    assert "[red]日本\\n\\x1b[31m\\u202ekey=1" in done.stdout
    assert "xx…xx" in done.stdout
    assert "log  \\x1b]0;title\\x07 [red]\ufffd " in done.stdout
    assert "hunter2" not in done.stdout + tail("r", "--json").stdout


def test_a_row_is_no_wider_than_the_terminal(session: Session) -> None:
    """What does not fit is counted; wide characters count twice."""
    with session("r") as run:
        run.log_metrics({f"損失{i}": i / 7 for i in range(30)}, 1)
        run.log_metrics({"a": 1.0}, 2)
    words = ["tail", "-r", "runs", "r", "--metrics", "--no-follow"]
    environ = {"COLUMNS": "60", "FORCE_COLOR": "1", "TERM": "xterm"}
    shown = CliRunner().invoke(app, words, env=environ).stdout
    wide, narrow = re.sub("\x1b\\[[0-9;]*m", "", shown).splitlines()
    assert 45 < cell_len(wide) <= 60
    count = wide.count("損失")
    assert wide.endswith(f"  +{30 - count} more")
    assert narrow == "step 2  a=1"


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_run_that_is_made_anew_is_followed_from_its_start(
    session: Session, tmp_path: Path
) -> None:
    """The journal that was followed has gone, and another one has its name."""
    for step in (1, 2):
        with session("r") as run:
            run.log_metrics({"loss": 0.5}, step)
        if step == 1:
            rows = RowsTail(run.run_artifact_dir)
            assert [row.step for row in rows.last(9)] == [1]
            assert list(rows.new()) == []
            shutil.rmtree(run.run_artifact_dir)
    assert [row.step for row in rows.new()] == [2]
    assert list(rows.new()) == []
    rows.close()


def test_torn_ends_are_borne(lived: Path) -> None:
    """Half a block is passed over, half a line is shown once nobody can finish it."""
    journal, log = lived / "metrics.2.journal", lived / "training.log"
    with journal.open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) // 2)
    with log.open("ab") as file:
        file.write(b"half a li")
    lines = tail("r", "-n", "1").stdout.splitlines()
    assert lines[0] == "step 7  loss=0.875  lr=0.001"
    assert "session ended" in lines[1]
    assert lines[2:] == ["log  half a li"]


def test_a_missing_log_or_journal_is_no_error(lived: Path) -> None:
    """What is there is shown."""
    (lived / "training.log").unlink()
    assert tail("r", "-n", "1").stdout == "step 9  eval/score=9\n"
    for journal in lived.glob("*.journal"):
        journal.unlink()
    done = tail("r")
    assert (done.exit_code, done.stdout) == (0, "")


def test_the_last_rows_and_lines_of_a_long_run_are_found_from_its_end(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small parts of journal and log are read; the names come from the journal's beginning."""
    with session("r") as run:
        for step in range(30_000):
            run.log_metrics({"loss": 1.0, "b": 2.0}, step)
        with open(run.log_file_path, "ab") as file:
            file.write(b"a line\n" * 300_000)
    size = os.path.getsize(os.path.join(run.run_artifact_dir, "metrics.1.journal"))
    read, total = os.read, 0

    def counting(fd: int, count: int) -> bytes:
        nonlocal total
        data = read(fd, min(count, 1 << 16))
        total += len(data)
        return data

    monkeypatch.setattr(os, "read", counting)
    monkeypatch.setattr("keisei.journal.attempt.CHUNK", 1 << 16)
    done = tail("r", "--metrics", "--no-follow", "-n", "2")
    assert done.stdout.splitlines() == ["step 29998  loss=1  b=2", "step 29999  loss=1  b=2"]
    assert total < size / 5
    total = 0
    done = tail("r", "--log", "--no-follow", "-n", "2")
    assert done.stdout.splitlines()[0] == "log  a line"
    assert "session ended" in done.stdout.splitlines()[1]
    assert total < 300_000
    done = tail("r", "--metrics", "--no-follow", "--json", "-n", "9000")
    assert [told(line)["step"] for line in done.stdout.splitlines()] == [*range(21_000, 30_000)]


def test_a_live_run_is_followed_to_its_end(
    session: Session, follow: Callable[..., Follower]
) -> None:
    """Rows and lines come as they are logged, each once; the end line is the last one."""
    with session("r") as run:
        run.log_metrics({"loss": 0.0}, 0)
        run.flush()
        follower = follow("r", "--json")
        assert "session started" in told(follower.line())["line"]
        assert told(follower.line())["step"] == 0
        for step in range(1, 3):
            run.log_metrics({"loss": float(step)}, step)
            run.flush()
            row = told(follower.line())
            assert (row["step"], row["values"]) == (step, {"loss": float(step)})
        with open(run.log_file_path, "ab", buffering=0) as file:
            file.write(b"a line in ")
            run.log_metrics({"loss": 3.0}, 3)
            run.flush()
            assert told(follower.line())["step"] == 3
            file.write(b"two parts\n")
            assert told(follower.line()) == {"kind": "log", "line": "a line in two parts"}
        run.log_metrics({"loss": 4.0}, 4)
    assert told(follower.line())["step"] == 4
    assert "session ended" in told(follower.line())["line"]
    assert told(follower.line()) == {"kind": "end", "state": "completed"}
    assert follower.line() == ""
    assert follower.end() == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no open file, and has no SIGINT")
def test_a_run_that_is_waited_for_is_followed_over_its_attempts(
    session: Session, follow: Callable[..., Follower]
) -> None:
    """From before it is there, through a log that is replaced, until Ctrl-C."""
    follower = follow("r", "--wait")
    assert follower.process.stderr is not None
    assert "waiting for run 'r' under" in follower.process.stderr.readline()
    for attempt in (1, 2):
        with session("r") as run:
            run.log_metrics({"loss": attempt}, attempt)
            run.flush()
            shown = follower.until(f"step {attempt}  loss={attempt}")
            assert ("-- attempt 2" in shown) == (attempt == 2)
            if attempt == 2:
                new = f"{run.log_file_path}.new"
                Path(new).write_text("a new log\n")
                os.replace(new, run.log_file_path)
                assert "training.log was cut or replaced" in follower.until("a new log")[-2]
                Path(run.log_file_path).write_text("cut\n")
                follower.until("log  cut")
        follower.until("session ended")
        line = follower.process.stderr.readline()
        assert line == "keisei tail: run 'r': completed; waiting for its next attempt\n"
    follower.process.send_signal(signal.SIGINT)
    assert follower.end() == (130, "")


def test_a_flood_is_thinned_and_what_is_left_out_is_counted(
    session: Session, follow: Callable[..., Follower]
) -> None:
    """Few lines for many rows, the last one among them; no row is lost in the counting."""
    rows = 20_000
    with session("r") as run:
        run.flush()
        follower = follow("r")
        follower.until("session started")
        for step in range(rows):
            run.log_metrics({"loss": 1.0}, step)
        run.flush()
        lines = follower.until(f"step {rows - 1} ")
    left_out = [line.partition("(")[2].split()[0] for line in lines if "left out" in line]
    assert sum(int(number.replace(",", "")) for number in left_out) + len(lines) == rows
    assert len(lines) < 500


def test_the_line_that_is_logged_after_the_end_is_shown(
    tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session records its end before it logs it; whoever looks in between looks once more."""
    runs = Runs(tmp_path / "runs", make_config)
    log = runs.elsewhere() / "training.log"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0])
    steps: list[Callable[[], object]] = [
        lambda: runs.record(status="completed"),
        lambda: log.write_text("".join(lines)),
    ]
    monkeypatch.setattr("keisei.cli.tail.sleep", lambda seconds: steps.pop(0)())
    assert "session ended" in tail("r").stdout.splitlines()[-1]


def test_the_end_of_an_owner_that_was_killed_is_seen(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    """Its record says that it runs, and nothing of it does."""
    Runs(tmp_path / "runs", make_config).killed("r")
    done = tail("r")
    assert (done.exit_code, done.stderr) == (0, "keisei tail: run 'r': died\n")


def test_a_reader_that_goes_away_is_no_error(lived: Path) -> None:
    """As with `keisei tail r | head -1`: no traceback."""
    with subprocess.Popen(
        [sys.executable, "-c", "from keisei.cli import main; main()", "tail", "r", "--json"],
        env={**os.environ, "KEISEI_LOG_DIR": "runs"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_run_that_is_removed_is_said(session: Session, follow: Callable[..., Follower]) -> None:
    """Its directory has gone under the follower."""
    with session("r") as run:
        follower = follow("r")
        follower.until("session started")
        shutil.rmtree(run.run_artifact_dir)
        code, error = follower.end()
    assert code == 2
    assert error.startswith("keisei tail: ")
    assert error.count("\n") == 1


def test_a_long_line_comes_in_pieces_and_is_not_held(tmp_path: Path) -> None:
    """A log without newlines cannot fill the memory, nor can one that grows for ever."""
    (tmp_path / "log").write_bytes(b"x" * 200_000 + b"\nlast\n")
    log = LogTail(str(tmp_path), "log")
    lines = list(log.new())
    assert "".join(lines) == "x" * 200_000 + "last"
    assert max(map(len, lines)) <= 1 << 16
    log.close()
    assert LogTail(str(tmp_path), "log").last(1) == ["last"]


def test_a_row_of_many_metrics_takes_as_many_lines_as_it_needs(session: Session) -> None:
    """Outside a terminal nothing is left out, and no line is wider than the output."""
    with session("r") as run:
        run.log_metrics({f"metric/number/{n}": n for n in range(40)}, 7)
    lines = tail("r", "--no-follow", "--metrics").stdout.splitlines()
    assert lines[0].startswith("step 7  metric/number/0=0")
    assert max(map(len, lines)) <= 60
    shown = [part for line in lines for part in line.split() if "=" in part]
    assert shown == [f"metric/number/{n}={n}" for n in range(40)]


def test_rows_and_lines_come_in_the_order_of_their_times(session: Session) -> None:
    """What is shown first, too: a traceback, say, stands behind the row before it."""
    logger = logging.getLogger("test_order")
    logger.setLevel(logging.INFO)
    with session("r") as run:
        logger.addHandler(handler := run.log_handler())
        for step in range(3):
            run.log_metrics({"loss": step}, step)
            threading.Event().wait(0.01)
            logger.info("after %d", step)
            threading.Event().wait(0.01)
        logger.removeHandler(handler)
    lines = tail("r", "--no-follow").stdout.splitlines()[1:-1]  # without the start and the end
    order = [line.split()[-1] for line in lines]
    assert order == ["loss=0", "0", "loss=1", "1", "loss=2", "2"]
