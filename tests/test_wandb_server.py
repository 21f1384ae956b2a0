"""W&B against a server on loopback that turns bad: deadlines, fallback, late runs, exit.

The SDK keeps global state, so every situation is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.wandb_file import find_run_files, wait_for_exit_record
from tests.support.wandb_server import FakeWandb

PROGRAM = """
import json, sys, time
import anyio
from keisei import AsyncSessionManager, SessionManager, load_config

face, rows, overrides = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
config = load_config(overrides=["logging.wandb_enabled=true", "wandb.mode=online", *overrides])
told = {}


def say(**facts):
    told.update(facts)
    print(json.dumps(facts), flush=True)


class Clock:
    def __enter__(self):
        self.start = time.monotonic()

    def __exit__(self, *exc):
        self.took = time.monotonic() - self.start


def log(session):
    if session.wandb_run is not None:
        for n in range(rows):
            session.wandb_run.log({"n": n})


async def main():
    session, clock = AsyncSessionManager(config, run_name="r"), Clock()
    await session.setup_directories()
    with clock:
        active = await session.setup_wandb()
    say(active=active, init=clock.took, id=session.session_id)
    log(session)
    sys.stdin.readline()
    with clock:
        await session.finalize_session()
    say(finish=clock.took, ended=time.time())


def blocking():
    session, clock = SessionManager(config, run_name="r"), Clock()
    session.setup_directories()
    with clock:
        active = session.setup_wandb()
    say(active=active, init=clock.took, id=session.session_id)
    log(session)
    sys.stdin.readline()
    with clock:
        session.finalize_session()
    say(finish=clock.took, ended=time.time())


if face == "blocking":
    blocking()
else:
    options = {"use_uvloop": True} if face == "uvloop" else None
    anyio.run(main, backend="trio" if face == "trio" else "asyncio", backend_options=options)
"""


@dataclass
class Told:
    """What a program told of its session, and how it left.

    Attributes:
        facts: what it printed.
        exit_s: how long its process lived after the session's end, in seconds.
        code: its exit status.
        errors: what it wrote to stderr.
        run: the run's directory.
    """

    facts: dict[str, Any]
    exit_s: float
    code: int
    errors: str
    run: Path

    @property
    def tracked(self) -> dict[str, Any]:
        """What the run's own record says of W&B."""
        record = json.loads((self.run / "session.json").read_text(encoding="utf-8"))
        found: dict[str, Any] = record["trackers"].get("wandb", {})
        return found

    def rows(self) -> list[int]:
        """Give the rows that are in the local run files."""
        found = []
        for path in find_run_files(self.run):
            found += [row["n"] for row in wait_for_exit_record(path, 20).history if "n" in row]
        return found


class Program:
    """A program with one session, in a process of its own."""

    def __init__(
        self, server: FakeWandb, tmp_path: Path, face: str, *overrides: str, rows: int = 10
    ) -> None:
        environ = {**os.environ, **server.environ(), "KEISEI_LOG_DIR": str(tmp_path / "runs")}
        self.run = tmp_path / "runs" / "r"
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, face, str(rows), *overrides],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.facts: dict[str, Any] = {}

    def started(self) -> dict[str, Any]:
        """Wait until W&B's step is over, and give what it told."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.facts |= json.loads(line)
        return self.facts

    def end(self) -> Told:
        """Let the session end, and wait for the process."""
        out, errors = self.process.communicate("\n", timeout=60)
        left = time.time()
        for line in out.splitlines():
            self.facts |= json.loads(line)
        assert "ended" in self.facts, errors
        exit_s = left - self.facts["ended"]
        return Told(self.facts, exit_s, self.process.returncode, errors, self.run)


@pytest.fixture
def server() -> Iterator[FakeWandb]:
    """A server on loopback that the SDK takes for W&B."""
    with FakeWandb() as fake:
        yield fake


FACES = ["asyncio", "uvloop", "trio", "blocking"]


@pytest.mark.requirement("WB-1", "WB-6")
@pytest.mark.parametrize("face", FACES)
def test_a_server_that_is_well_gets_the_whole_run(
    server: FakeWandb, tmp_path: Path, face: str
) -> None:
    """Id, name, config, rows and exit code arrive, and the process leaves quickly."""
    program = Program(server, tmp_path, face)
    assert program.started()["active"] is True
    told = program.end()
    run = server.runs[told.facts["id"]]
    assert run.display_name == "r"
    assert [row["n"] for row in run.history] == list(range(10))
    assert run.exit_code == 0
    assert told.tracked["state"] == "finished"
    assert told.tracked["mode"] == "online"
    assert told.code == 0
    assert "Traceback" not in told.errors


@pytest.mark.requirement("WB-4", "WB-9")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("mode", ["silent", "refuses", "500"])
def test_a_server_that_is_away_gives_an_offline_run_of_the_same_id(
    server: FakeWandb, tmp_path: Path, face: str, mode: Any
) -> None:
    """Within the deadline, with one warning, and every row is local."""
    server.set_mode(mode)
    program = Program(server, tmp_path, face, "wandb.init_timeout=4", "wandb.finish_timeout=2")
    program.started()
    told = program.end()
    assert told.facts["active"] is True
    assert told.facts["init"] < 4.5
    assert told.facts["finish"] < 2.5
    assert told.tracked["mode"] == "offline"
    assert told.tracked["run_id"] == told.facts["id"]
    assert told.rows() == list(range(10))
    assert told.errors.count("W&B cannot be reached") == 1
    assert told.exit_s < 1.5


@pytest.mark.requirement("WB-4", "WB-8", "FIN-2")
@pytest.mark.parametrize("face", FACES)
def test_a_start_that_hangs_is_left_at_its_deadline(
    server: FakeWandb, tmp_path: Path, face: str
) -> None:
    """The session goes on without W&B, and the process does not wait for it either."""
    server.set_mode("silent", endpoint="UpsertBucket")
    program = Program(server, tmp_path, face, "wandb.init_timeout=2", "wandb.finish_timeout=2")
    program.started()
    told = program.end()
    assert told.facts["init"] < 2.5
    assert told.exit_s < 1.5
    assert told.code == 0


@pytest.mark.requirement("FIN-2")
@pytest.mark.parametrize("face", FACES)
def test_a_finish_that_hangs_is_abandoned_at_its_deadline(
    server: FakeWandb, tmp_path: Path, face: str
) -> None:
    """One warning says where the local files are, and they hold every row."""
    program = Program(server, tmp_path, face, "wandb.finish_timeout=2")
    assert program.started()["active"] is True
    server.set_mode("silent")
    told = program.end()
    assert told.facts["finish"] < 2.5
    assert told.exit_s < 1.5
    assert told.code == 0
    assert told.tracked["state"] == "abandoned"
    assert told.errors.count("the run is abandoned there") == 1
    assert told.tracked["directory"] in told.errors
    assert told.rows() == list(range(10))


@pytest.mark.requirement("WB-8")
def test_a_run_that_comes_alive_late_is_closed_on_the_server(
    server: FakeWandb, tmp_path: Path
) -> None:
    """It is ended as failed within a second of its birth, while the session goes on."""
    server.set_mode("silent", endpoint="UpsertBucket")
    program = Program(
        server, tmp_path, "asyncio", "wandb.init_timeout=2", "wandb.offline_fallback=false"
    )
    assert program.started()["active"] is False
    server.set_mode("ok", endpoint="UpsertBucket")
    server.wait_for(lambda: any(run.complete for run in server.runs.values()), timeout=30)
    (run,) = server.runs.values()
    assert run.exit_code == 1
    assert program.end().code == 0


@pytest.mark.requirement("WB-9")
def test_without_the_fallback_a_server_that_is_away_means_no_tracking(
    server: FakeWandb, tmp_path: Path
) -> None:
    """The step says `False`, and one warning says why."""
    server.set_mode("refuses")
    program = Program(
        server, tmp_path, "asyncio", "wandb.init_timeout=4", "wandb.offline_fallback=false"
    )
    program.started()
    told = program.end()
    assert told.facts["active"] is False
    assert told.errors.count("wandb did not start") == 1
    assert told.tracked == {}
