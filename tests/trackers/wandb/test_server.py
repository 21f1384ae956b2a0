"""W&B against a server on loopback that turns bad: deadlines, fallback, late runs, exit.

The SDK keeps global state, so every situation is a process of its own, and the processes run a
few at a time. What they measured is printed as a table (pytest -s shows it).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.wandb_faults import Mode
from tests.support.wandb_file import find_run_files, read_run_file
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
            # The process has ended: nothing is written any more.
            found += [row["n"] for row in read_run_file(path).history if "n" in row]
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
INIT_TIMEOUT, FINISH_TIMEOUT = 8.0, 2.0
# How much later than promised a program may be on a machine that runs several at a time.
LENIENCE = 1.5

Setting = tuple[Mode, str | None]


@dataclass(frozen=True)
class Situation:
    """A server that is bad at a moment.

    Attributes:
        moment: when it turns bad: before the `start`, or before the `end`.
        mode: how it treats requests then, and which (`None`: all).
        tracked: how the run has to be tracked: `online`, `offline`, under a `substitute` id;
            several where it depends on the moment.
        state: what the record has to say of the tracker at the end, likewise.
    """

    moment: str
    mode: Setting
    tracked: tuple[str, ...]
    state: tuple[str, ...]


OFFLINE = ("offline",), ("finished",)
ANY_WAY = ("online", "offline", "substitute")
SITUATIONS = [
    Situation("start", ("ok", None), ("online",), ("finished",)),
    Situation("start", ("silent", None), *OFFLINE),
    Situation("start", ("refuses", None), *OFFLINE),
    Situation("start", ("500", None), *OFFLINE),
    Situation("start", ("401", None), *OFFLINE),
    Situation("start", ("404", None), *OFFLINE),
    Situation("start", ("closes", None), *OFFLINE),
    Situation("start", ("silent", "UpsertBucket"), ("substitute",), ("finished",)),
    Situation("start", ("500", "UpsertBucket"), ("substitute",), ("finished",)),
    Situation("start", ("slow", None), ANY_WAY, ("finished", "abandoned")),
    Situation("start", ("flaps", None), ANY_WAY, ("finished", "abandoned")),
    Situation("end", ("silent", None), ("online",), ("abandoned",)),
    Situation("end", ("refuses", None), ("online",), ("abandoned",)),
    Situation("end", ("500", None), ("online",), ("abandoned",)),
    Situation("end", ("silent", "file_stream"), ("online",), ("abandoned",)),
    Situation("end", ("silent_from_finish", None), ("online",), ("abandoned",)),
    Situation("end", ("slow", None), ("online",), ("finished", "abandoned")),
]
# Each on asyncio and on the blocking face, every second one on one of the other loops by turns.
CASES = [
    (situation, face)
    for number, situation in enumerate(SITUATIONS)
    for face in FACES
    if face in ("asyncio", "blocking", *(("uvloop", "trio")[number // 2 % 2],) * (number % 2))
]


def live_through(situation: Situation, face: str, place: Path) -> Told:
    """Run a program with one session through a situation."""
    mode, endpoint = situation.mode
    with FakeWandb() as server:
        if situation.moment == "start":
            server.set_mode(mode, endpoint=endpoint, seconds=0.4)
        program = Program(
            server,
            place,
            face,
            f"wandb.init_timeout={INIT_TIMEOUT}",
            f"wandb.finish_timeout={FINISH_TIMEOUT}",
        )
        program.started()
        if situation.moment == "end":
            server.set_mode(mode, endpoint=endpoint, seconds=0.4)
        return program.end()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Any, Future[Told]]]:
    """Run all situations, four processes at a time."""
    with ThreadPoolExecutor(4) as pool:
        yield {
            case: pool.submit(live_through, *case, tmp_path_factory.mktemp("lived"))
            for case in CASES
        }


@pytest.mark.requirement("WB-1", "WB-4", "WB-9", "FIN-1", "FIN-2")
@pytest.mark.parametrize(
    ("situation", "face"),
    CASES,
    ids=[f"{s.moment}-{s.mode[0]}-{s.mode[1] or 'all'}-{face}" for s, face in CASES],
)
def test_whatever_the_server_does_the_session_ends_in_time(
    lived: dict[Any, Future[Told]], situation: Situation, face: str
) -> None:
    """Within its deadlines, with the true record, every row local, and no process left."""
    told = lived[situation, face].result()
    assert told.code == 0, told.errors
    assert "Traceback" not in told.errors
    assert "Fatal Python error" not in told.errors
    assert told.facts["active"] is True, told.errors
    assert told.facts["init"] < INIT_TIMEOUT + LENIENCE
    assert told.facts["finish"] < FINISH_TIMEOUT + LENIENCE
    assert told.exit_s < 1.0 + LENIENCE
    tracked = told.tracked
    how = "substitute" if tracked["upload_as"] else tracked["mode"]
    assert how in situation.tracked
    assert tracked["state"] in situation.state
    assert tracked["upload_as"] in (None, told.facts["id"])
    assert (tracked["run_id"] == told.facts["id"]) is (how != "substitute")
    assert told.rows() == list(range(10))
    if tracked["state"] == "abandoned":
        assert told.errors.count("the run is abandoned there") == 1
        assert tracked["directory"] in told.errors
    if how != "online":
        assert told.errors.count("W&B cannot be reached") == 1
    mark = list(Path(tracked["directory"]).glob("run-*.wandb.synced"))
    assert bool(mark) is ((how, tracked["state"]) == ("online", "finished"))


def test_the_situations_in_figures(lived: dict[Any, Future[Told]]) -> None:
    """At least 40 situations were lived through; the longest of each figure is printed."""
    told = [future.result() for future in lived.values()]
    assert len(told) >= 40
    start = max(t.facts["init"] for t in told)
    end = max(t.facts["finish"] for t in told)
    leave = max(t.exit_s for t in told)
    print(
        f"\n{len(told)} situations: the longest start {start:.2f} s of {INIT_TIMEOUT}, "
        f"end {end:.2f} s of {FINISH_TIMEOUT}, exit after it {leave:.2f} s"
    )


@pytest.mark.requirement("WB-6")
def test_a_server_that_is_well_gets_the_whole_run(server: FakeWandb, tmp_path: Path) -> None:
    """Id, name, config, rows and exit code arrive."""
    program = Program(server, tmp_path, "asyncio")
    assert program.started()["active"] is True
    told = program.end()
    run = server.runs[told.facts["id"]]
    assert run.display_name == "r"
    assert [row["n"] for row in run.history] == list(range(10))
    assert run.exit_code == 0
    assert run.config["wandb"]["mode"] == "online"


@pytest.mark.requirement("FIN-2")
@pytest.mark.parametrize("rows", [15_000, pytest.param(100_000, marks=pytest.mark.storm)])
def test_a_backlog_does_not_lengthen_the_end(server: FakeWandb, tmp_path: Path, rows: int) -> None:
    """With many rows unsent and a silent server, deadline and rows hold all the same."""
    limits = [f"wandb.finish_timeout={FINISH_TIMEOUT}"]
    program = Program(server, tmp_path, "asyncio", *limits, rows=rows)
    program.started()
    server.set_mode("silent")
    told = program.end()
    assert told.facts["finish"] < FINISH_TIMEOUT + LENIENCE
    assert told.exit_s < 1.0 + LENIENCE
    assert told.rows() == list(range(rows))


@pytest.mark.requirement("WB-8")
def test_a_run_that_comes_alive_late_is_closed_on_the_server(
    server: FakeWandb, tmp_path: Path
) -> None:
    """It is ended as failed within a second of its birth, while the session goes on offline."""
    server.set_mode("silent", endpoint="UpsertBucket")
    program = Program(server, tmp_path, "asyncio", "wandb.init_timeout=2")
    assert program.started()["active"] is True
    server.set_mode("ok", endpoint="UpsertBucket")
    server.wait_for(lambda: any(run.complete for run in server.runs.values()), timeout=30)
    (run,) = server.runs.values()
    assert run.exit_code == 1
    assert run.ended_at is not None
    assert run.ended_at - run.created_at < 1 + LENIENCE
    told = program.end()
    assert told.code == 0
    assert told.tracked["upload_as"] == run.id == told.facts["id"]


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


FORGETFUL = """
import sys, time
from keisei import SessionManager, load_config
config = load_config(overrides=["logging.wandb_enabled=true", "wandb.mode=online",
                                "wandb.finish_timeout=2"])
session = SessionManager(config, run_name="r")
session.setup_directories()
print(session.setup_wandb(), flush=True)
for n in range(int(sys.argv[1])): session.wandb_run.log({"n": n})
sys.stdin.readline()
print(time.time(), flush=True)
sys.exit(7)
"""


@pytest.mark.requirement("FIN-2")
@pytest.mark.parametrize("rows", [10, 20_000])
def test_a_run_that_was_never_ended_does_not_hold_the_process(
    server: FakeWandb, tmp_path: Path, rows: int
) -> None:
    """A program that forgets to end its session leaves in time, with its own exit status."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORGETFUL, str(rows)],
        env={**os.environ, **server.environ(), "KEISEI_LOG_DIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    server.set_mode("silent")
    out, errors = process.communicate("\n", timeout=60)
    took = time.time() - float(out)
    assert process.returncode == 7, errors
    assert took < FINISH_TIMEOUT + 1 + LENIENCE
    (path,) = find_run_files(tmp_path / "r")
    assert [row["n"] for row in read_run_file(path).history] == list(range(rows))


@pytest.mark.requirement("FIN-2")
@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("face", FACES)
def test_ctrl_c_while_the_end_hangs_leaves_in_time(
    server: FakeWandb, tmp_path: Path, face: str
) -> None:
    """An interruption in the middle of the end waits for no server either."""
    program = Program(server, tmp_path, face, f"wandb.finish_timeout={FINISH_TIMEOUT}")
    program.started()
    server.set_mode("silent")
    assert program.process.stdin is not None
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    record = program.run / "session.json"
    give_up = time.monotonic() + 20
    while json.loads(record.read_text(encoding="utf-8"))["status"] == "running":
        assert time.monotonic() < give_up
    interrupted = time.time()
    program.process.send_signal(signal.SIGINT)
    _, errors = program.process.communicate(timeout=60)
    assert time.time() - interrupted < FINISH_TIMEOUT + 1 + LENIENCE, errors
    assert program.process.returncode in (0, 1, -signal.SIGINT)
    told = Told({}, 0, 0, errors, program.run)
    assert told.rows() == list(range(10))
