"""The program from a shell: what it imports, how it meets a closed pipe, Ctrl-C and a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei import __version__ as keisei_version
from keisei.cli import program
from tests.conftest import MakeConfig

MAIN = "from keisei.cli import main; main()"
LIMIT = 60.0  # seconds that a command may take on a busy machine
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals, descriptors and devices of POSIX")
COMMANDS = [["doctor"], ["doctor", "--json"], ["sync"], ["plot", "r"], ["tail", "r"], ["--help"]]


@pytest.fixture
def run(make_config: MakeConfig, tmp_path: Path) -> Path:
    """A run that has ended, with more rows than a pipe holds."""
    with SessionManager(make_config(), run_name="r") as session:
        for step in range(5000):
            session.log_metrics({"loss": step / 8, "a/long/name/of/a/metric": step}, step)
    return tmp_path / "runs" / "r"


def keisei(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start the program."""
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@POSIX
@pytest.mark.parametrize(
    "command", [["tail", "r", "-n", "5000"], ["tail", "r", "-n", "5000", "--json"]], ids=len
)
def test_a_reader_that_stops_reading_ends_the_program_quietly(
    run: Path, command: list[str]
) -> None:
    """As with `keisei tail | head`: no traceback, and no complaint at the exit."""
    with keisei(*command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(LIMIT) == 1


@POSIX
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_pipe_that_is_closed_from_the_start_is_no_traceback(
    run: Path, command: list[str]
) -> None:
    """The output goes nowhere."""
    reader, writer = os.pipe()
    os.close(reader)
    with keisei(*command, stdout=writer) as process:
        os.close(writer)
        _, errors = process.communicate(timeout=LIMIT)
    assert b"Traceback" not in errors
    assert b"Exception ignored" not in errors


@POSIX
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_standard_output_it_works_all_the_same(run: Path, command: list[str]) -> None:
    """Its descriptor is closed, as `>&-` and some daemons do it."""
    with keisei(*command, stdout=None, preexec_fn=lambda: os.close(1)) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert b"Traceback" not in errors
    assert process.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_output_that_is_full_is_said(run: Path, command: list[str]) -> None:
    """In one line, with exit status 2."""
    with open("/dev/full", "wb") as full, keisei(*command, stdout=full) as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert b"No space left on device" in errors.splitlines()[-1]
    assert b"Traceback" not in errors


@POSIX
def test_ctrl_c_ends_a_follower_with_130(run: Path) -> None:
    """It waits for a run that never comes; nothing but what it said before is printed."""
    restore: Callable[[], object] = lambda: signal.signal(  # noqa: E731
        signal.SIGINT, signal.default_int_handler
    )
    with keisei("tail", "never", "--wait", "--root", "runs", preexec_fn=restore) as process:
        assert process.stderr is not None
        assert b"waiting for run 'never'" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, errors) == (130, b"", b"")


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        (["--help"], {"rich.console", "keisei.cli.doctor", "keisei.cli.tail"}),
        (["doctor", "r"], {"keisei.cli.tail", "keisei.cli.plot", "keisei.reports.series"}),
        (["tail", "r"], {"keisei.cli.doctor", "keisei.cli.sync", "keisei.trackers.backfill"}),
        (["plot", "r"], {"keisei.cli.doctor", "keisei.cli.tail", "keisei.trackers.backfill"}),
    ],
    ids=["--help", "doctor", "tail", "plot"],
)
def test_only_the_command_that_runs_is_imported(
    run: Path, command: list[str], absent: set[str]
) -> None:
    """And what it needs: neither the others, nor any tracker's SDK, nor what draws pictures."""
    heavy = {"matplotlib", "mlflow", "numpy", "pandas", "rich.markdown", "tensorboard", "wandb"}
    text = (
        "import sys\n"
        "from keisei.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", text, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (absent | heavy) & set(done.stderr.split())


@pytest.mark.parametrize("command", [["-c", MAIN], ["-m", "keisei"]], ids=["script", "module"])
def test_the_version_is_told(command: list[str]) -> None:
    """Also where the program is started as a module."""
    done = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"keisei {keisei_version}\n")


def test_the_help_names_every_command(tmp_path: Path) -> None:
    """With the first sentence of its own help; a misspelt one is answered with the nearest."""
    for name, summary in program.COMMANDS.items():
        program.register(name)
        assert summary in " ".join(CliRunner().invoke(program.app, [name, "--help"]).stdout.split())
    with keisei("--help") as process:
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    for summary in program.COMMANDS.values():
        assert summary in out.decode()
    with keisei("docter") as process:
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert b"'doctor'" in errors
