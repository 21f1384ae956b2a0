"""`keisei cancel`: a run ends from elsewhere, and the command says how it stands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import cancel as _cancel  # noqa: F401 - registers the command
from keisei.cli.program import app
from tests.conftest import MakeConfig

RUNS = """
import sys, anyio
from keisei import AsyncSessionManager, load_config

config = load_config(overrides={"logging": {"log_dir": "runs"}})

async def main():
    async with AsyncSessionManager(config, run_name="r") as session:
        with anyio.CancelScope(shield=sys.argv[1] == "stubborn"):
            print("ready", flush=True)
            await anyio.sleep_forever()

anyio.run(main)
"""


@contextmanager
def running(tmp_path: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that runs the run `r`."""
    command = [sys.executable, "-c", RUNS, kind]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=tmp_path, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def keisei_cancel(*arguments: str, status: int = 0) -> str:
    """Run the command in this process, and return what it printed."""
    done = CliRunner().invoke(app, ["cancel", "--root", "runs", *arguments])
    assert done.exit_code == status, done.output
    return done.output


@pytest.mark.requirement("RANK-8")
def test_a_run_of_another_process_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as cancelled, with who has asked as the reason; the error ends that program."""
    monkeypatch.chdir(tmp_path)
    with running(tmp_path, "willing") as process:
        found = json.loads(keisei_cancel("r", "--json"))["runs"][0]
        assert (found["name"], found["state"], found["asked"]) == ("r", "cancelled", True)
        assert process.wait(60) == 1
        assert process.stderr is not None
        assert "RunCancelledError: the run is cancelled by keisei cancel" in process.stderr.read()
    record = json.loads((tmp_path / "runs" / "r" / "session.json").read_bytes())
    assert record["status"] == "cancelled"
    assert record["failure"]["message"].startswith("keisei cancel, by ")
    assert keisei_cancel("r", status=1) == "r: nothing to cancel: it is cancelled\n"


def test_one_that_does_not_give_in_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It still runs after the time, is only asked with `--wait 0`, and ends with `--force`."""
    monkeypatch.chdir(tmp_path)
    with running(tmp_path, "stubborn") as process:
        assert keisei_cancel("r", "--wait", "0") == "r: asked to end\n"
        assert process.poll() is None
        said = keisei_cancel("r", "--wait", "0.2", status=1)
        assert said == "r: asked to end, and still running after 0.2 s\n"
        assert process.poll() is None


def test_force_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not give in is ended with its process, and the run is cancelled."""
    monkeypatch.chdir(tmp_path)
    with running(tmp_path, "stubborn") as process:
        said = keisei_cancel("r", "--wait", "1", "--force")
        assert said == "r: ended as cancelled\n"
        assert process.wait(60) == 128 + 15
    record = json.loads((tmp_path / "runs" / "r" / "session.json").read_bytes())
    assert record["status"] == "cancelled"


def test_what_does_not_run_cannot_be_cancelled(make_config: MakeConfig) -> None:
    """A run that has ended stays as it is; one that is not there is an error."""
    with SessionManager(make_config(), run_name="done"):
        pass
    assert keisei_cancel("done", status=1) == "done: nothing to cancel: it is completed\n"
    assert "there is no run" in keisei_cancel("none", status=2)
    assert not Path("runs", "done", "stop.json").exists()
