"""W&B against a server on loopback that turns bad: deadlines, fallback, exit, and what is left.

Every situation is a program of its own, and the programs run a few at a time. What they measured
is printed as a table (pytest -s shows it).
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from keisei.testing.wandb_modes import Mode
from keisei.testing.wandb_server import WandbServer
from tests.support.storms import some_of
from tests.support.wandb_program import (
    FACES,
    Program,
    Told,
    until,
    wait_until_nothing_is_left,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="looks for processes in /proc")
together = pytest.mark.xdist_group("lived")  # what `lived` runs, one process looks at

FINISH_TIMEOUT, LINGER = 2.0, 2.0  # of those that run into it: seconds
PATIENCE = 60.0  # what all others get
# What a busy machine may add. Where a deadline does not hold, a server that is silent holds the
# program for ever; how much later than promised it was is printed.
LENIENCE = 20.0

Setting = tuple[Mode, str | None]


@dataclass(frozen=True)
class Situation:
    """A server that is bad at a moment.

    Attributes:
        moment: when it turns bad: before the `start`, or before the `end`.
        mode: how it treats requests then, and which (`None`: all).
        tracked: how the run has to be tracked: `online`, `offline`, under a `substitute` id;
            several where it depends on the moment.
        state: what the session file has to say of the tracker at the end, likewise.
        init_timeout: how long the start may take, in seconds.
    """

    moment: str
    mode: Setting
    tracked: tuple[str, ...]
    state: tuple[str, ...]
    init_timeout: float = PATIENCE

    @property
    def finish_timeout(self) -> float:
        """How long the end may take, in seconds."""
        return FINISH_TIMEOUT if "abandoned" in self.state else PATIENCE


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
    Situation("start", ("silent", "UpsertBucket"), ("substitute",), ("finished",), 8.0),
    Situation("start", ("500", "UpsertBucket"), ("substitute",), ("finished",), 8.0),
    Situation("start", ("slow", None), ANY_WAY, ("finished", "abandoned")),
    Situation("start", ("flaps", None), ANY_WAY, ("finished", "abandoned")),
    Situation("end", ("silent", None), ("online",), ("abandoned",)),
    Situation("end", ("refuses", None), ("online",), ("abandoned",)),
    Situation("end", ("500", None), ("online",), ("abandoned",)),
    Situation("end", ("silent", "file_stream"), ("online",), ("abandoned",)),
    Situation("end", ("silent_from_finish", None), ("online",), ("abandoned",)),
    Situation("end", ("slow", None), ("online",), ("finished", "abandoned")),
]


class Case(NamedTuple):
    """A situation, the face of the program, and whether the SDK is in the program."""

    situation: Situation
    face: str
    in_process: bool

    def __str__(self) -> str:
        mode, endpoint = self.situation.mode
        where = "program" if self.in_process else "host"
        return f"{self.situation.moment}-{mode}-{endpoint or 'all'}-{self.face}-{where}"


ALL = [Case(s, face, here) for s in SITUATIONS for face in FACES for here in (False, True)]
# Each situation on one face by turns, and some with the SDK in the program.
FEW = [Case(s, FACES[n % 4], False) for n, s in enumerate(SITUATIONS)]
FEW += [Case(s, FACES[n % 4], True) for n, s in enumerate(SITUATIONS) if n in (1, 7, 12)]
WHERE = [
    pytest.param(False, id="host"),
    pytest.param(True, id="program", marks=pytest.mark.storm),
]
SYNCED = (Case(SITUATIONS[7], FACES[3], False), Case(SITUATIONS[11], FACES[3], False))
PARAMETERS = [
    *(pytest.param(case, id=str(case)) for case in FEW),
    *(
        pytest.param(case, id=str(case), marks=pytest.mark.storm)
        for case in some_of([case for case in ALL if case not in FEW])
    ),
]


@dataclass
class Life:
    """How a program lived through a situation.

    Attributes:
        told: what it told.
        gone_s: how long after its end something of it lived, in seconds.
        synced: the status of the `keisei sync` that came after it, the rows that the server then
            had, and how many it had been sent.
    """

    told: Told
    gone_s: float
    synced: tuple[int, list[int], int] | None


def live_through(case: Case, home: Path, *, sync: bool) -> Life:
    """Run a program with one session through a situation, and sync it once the server is well."""
    mode, endpoint = case.situation.mode
    with WandbServer() as server:
        if case.situation.moment == "start":
            server.set_mode(mode, endpoint=endpoint, seconds=0.4)
        program = Program(
            server,
            home,
            case.face,
            f"wandb.init_timeout={case.situation.init_timeout}",
            f"wandb.finish_timeout={case.situation.finish_timeout}",
            f"wandb.in_process={case.in_process}",
            f"tracking.linger={LINGER}",
        )
        program.started()
        if case.situation.moment == "end":
            server.set_mode(mode, endpoint=endpoint, seconds=0.4)
        told = program.end()
        gone_s = wait_until_nothing_is_left(home, LINGER + LENIENCE)
        if not sync:
            return Life(told, gone_s, None)
        server.set_mode("ok")
        status, _, _ = program.sync()
        run = server.runs[told.facts["id"]]
        return Life(told, gone_s, (status, [row["n"] for row in run.history], run.rows_received))


@pytest.fixture(scope="module")
def lived(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Case, Future[Life]]]:
    """Run the situations that are asked for, four programs at a time."""
    items: list[Any] = request.session.items
    storm = "not storm" not in request.config.option.markexpr
    wanted = [
        item.callspec.params["case"]
        for item in items
        if item.path == request.path and "case" in item.fixturenames
    ]
    with ThreadPoolExecutor(4) as pool:
        yield {
            case: pool.submit(
                live_through, case, tmp_path_factory.mktemp("lived"), sync=storm or case in SYNCED
            )
            for case in wanted
        }


@together
@pytest.mark.requirement("WB-1", "WB-4", "WB-9", "FIN-1", "FIN-2", "HOST-3", "HOST-4")
@pytest.mark.parametrize("case", PARAMETERS)
def test_whatever_the_server_does_the_session_ends_in_time(
    lived: dict[Case, Future[Life]], case: Case
) -> None:
    """Within its deadlines, every row local, no process left; a sync then sends each row once."""
    life, situation = lived[case].result(), case.situation
    told, tracked = life.told, life.told.tracked
    assert told.code == 0, told.errors
    assert "Traceback" not in told.errors
    assert "Fatal Python error" not in told.errors
    # A start that runs into its deadline is given 2 s to go on offline, which may be too short.
    assert told.facts["active"] or situation.init_timeout < PATIENCE, told.errors
    assert told.facts["init"] < situation.init_timeout + LENIENCE
    assert told.facts["finish"] < situation.finish_timeout + LENIENCE
    assert told.exit_s < LENIENCE
    how = "substitute" if tracked["upload_as"] else tracked["mode"]
    assert how in situation.tracked
    assert tracked["state"] in situation.state
    assert tracked["upload_as"] in (None, told.facts["id"])
    assert (tracked["run_id"] == told.facts["id"]) is (how != "substitute")
    assert told.rows() == list(range(10))
    if tracked["state"] == "abandoned":
        late = told.errors.count("wandb did not finish within 2.0 s")
        # In the program the SDK's own limit comes first, unless the machine is busy.
        refused = told.errors.count("wandb failed to finish") if case.in_process else 0
        assert late + refused == 1
        assert tracked["directory"] in told.errors
    if how != "online":
        assert told.errors.count("W&B cannot be reached") == 1
    assert life.synced in (None, (0, list(range(10)), 10))


@together
def test_the_situations_in_figures(lived: dict[Case, Future[Life]]) -> None:
    """Many situations were lived through; the longest of each figure is printed."""
    lives = [future.result() for future in lived.values()]
    for where in (False, True):
        some = [future.result() for case, future in lived.items() if case.in_process is where]
        late = [life for life in some if not life.told.facts["active"]]
        start = max((life.told.facts["init"] for life in some), default=0)
        end = max((life.told.facts["finish"] for life in some), default=0)
        leave = max((life.told.exit_s for life in some), default=0)
        gone = max((life.gone_s for life in some), default=0)
        print(
            f"\n{len(some)} situations {'in the program' if where else 'in a host process'}: the "
            f"longest start {start:.2f} s, {len(late)} too late, end {end:.2f} s, "
            f"exit {leave:.2f} s, nothing left {gone:.2f} s after it"
        )
    assert len(lives) >= len(FEW)


@pytest.mark.requirement("WB-6")
def test_a_server_that_is_well_gets_the_whole_run(server: WandbServer, tmp_path: Path) -> None:
    """Id, name, config, rows and exit code arrive."""
    program = Program(server, tmp_path, "asyncio")
    assert program.started()["active"] is True
    told = program.end()
    run = server.runs[told.facts["id"]]
    assert run.display_name == "r"
    assert [row["n"] for row in run.history] == list(range(10))
    assert run.exit_code == 0
    assert run.config["wandb"]["mode"] == "online"
    assert told.synced()


@pytest.mark.requirement("FIN-2", "HOST-3")
@pytest.mark.parametrize("in_process", WHERE)
@pytest.mark.parametrize("rows", [2_000, pytest.param(100_000, marks=pytest.mark.storm)])
def test_a_backlog_does_not_lengthen_the_end(
    server: WandbServer, tmp_path: Path, rows: int, in_process: bool
) -> None:
    """With many rows unsent and a silent server, the deadline holds, and no row is lost."""
    program = Program(
        server,
        tmp_path,
        "asyncio",
        f"wandb.finish_timeout={FINISH_TIMEOUT}",
        f"wandb.in_process={in_process}",
        f"tracking.linger={LINGER}",
        rows=rows,
    )
    program.started()
    server.set_mode("silent")
    told = program.end()
    assert told.facts["finish"] < FINISH_TIMEOUT + LENIENCE
    assert told.exit_s < LENIENCE
    wait_until_nothing_is_left(tmp_path, LINGER + LENIENCE)
    local = told.rows()
    assert local == list(range(len(local)))
    server.set_mode("ok")
    assert program.sync()[0] == 0
    run = server.runs[told.facts["id"]]
    assert sorted(row["n"] for row in run.history) == list(range(rows))
    assert run.rows_received == rows


@pytest.mark.requirement("WB-9")
def test_without_the_fallback_a_server_that_is_away_means_no_tracking(
    server: WandbServer, tmp_path: Path
) -> None:
    """The step says `False`, and one warning says why; what was logged waits for a sync."""
    server.set_mode("refuses")
    program = Program(
        server,
        tmp_path,
        "asyncio",
        f"wandb.init_timeout={PATIENCE}",
        "wandb.offline_fallback=false",
    )
    program.started()
    told = program.end()
    assert told.facts["active"] is False
    assert told.facts["finish"] < LENIENCE  # a tracker that has given up is not waited for
    assert told.errors.count("wandb did not start (TrackerError: W&B cannot be reached") == 1
    assert told.tracked["state"] == "broken"
    server.set_mode("ok")
    assert program.sync()[0] == 0
    assert [row["n"] for row in server.runs[told.facts["id"]].history] == list(range(10))


@pytest.mark.requirement("FIN-2", "HOST-3")
@pytest.mark.parametrize("in_process", WHERE)
@pytest.mark.parametrize("rows", [10, pytest.param(20_000, marks=pytest.mark.storm)])
def test_a_run_that_was_never_ended_does_not_hold_the_process(
    server: WandbServer, tmp_path: Path, rows: int, in_process: bool
) -> None:
    """A program that forgets to end its session leaves in time, with its own exit status."""
    program = Program(
        server,
        tmp_path,
        "blocking",
        f"wandb.finish_timeout={FINISH_TIMEOUT}",
        f"wandb.in_process={in_process}",
        f"tracking.linger={LINGER}",
        rows=rows,
    )
    assert program.started()["active"] is True
    server.set_mode("silent")
    told = program.end("forget")
    assert told.code == 7, told.errors
    assert told.exit_s < FINISH_TIMEOUT + LENIENCE
    wait_until_nothing_is_left(tmp_path, LINGER + LENIENCE)
    server.set_mode("ok")
    assert program.sync()[0] == 0
    run = server.runs[told.facts["id"]]
    assert [row["n"] for row in run.history] == list(range(rows))
    assert run.rows_received == rows


@pytest.mark.requirement("HOST-3")
def test_a_run_that_was_never_ended_is_ended_by_its_host_process(
    server: WandbServer, tmp_path: Path
) -> None:
    """All rows arrive, and how the program ended, although it is gone: nobody waits for W&B."""
    program = Program(server, tmp_path, "asyncio")
    run_id = program.started()["id"]
    told = program.end("forget")
    assert told.exit_s < LENIENCE
    server.wait_for(lambda: server.runs[run_id].complete)
    run = server.runs[run_id]
    assert ([row["n"] for row in run.history], run.exit_code) == (list(range(10)), 0)
    wait_until_nothing_is_left(tmp_path, LENIENCE)


@pytest.mark.requirement("FIN-2")
@pytest.mark.parametrize(
    ("face", "in_process"),
    [
        ("asyncio", False),
        ("blocking", True),
        *(
            pytest.param(face, here, marks=pytest.mark.storm)
            for face in FACES
            for here in (False, True)
            if (face, here) not in (("asyncio", False), ("blocking", True))
        ),
    ],
)
def test_ctrl_c_while_the_end_hangs_leaves_in_time(
    server: WandbServer, tmp_path: Path, face: str, in_process: bool
) -> None:
    """An interruption in the middle of the end waits for no server either."""
    program = Program(
        server,
        tmp_path,
        face,
        f"wandb.finish_timeout={FINISH_TIMEOUT}",
        f"wandb.in_process={in_process}",
        f"tracking.linger={LINGER}",
    )
    program.started()
    server.set_mode("silent")
    program.tell("end")
    file = program.run / "session.json"
    until(lambda: json.loads(file.read_text(encoding="utf-8"))["status"] != "running")
    interrupted = time.time()
    program.process.send_signal(signal.SIGINT)
    _, errors = program.process.communicate(timeout=PATIENCE)
    assert time.time() - interrupted < FINISH_TIMEOUT + LENIENCE, errors
    assert program.process.returncode in (0, 1, -signal.SIGINT)
    wait_until_nothing_is_left(tmp_path, LINGER + LENIENCE)
    told = Told({}, 0, 0, errors, program.run)
    assert told.rows() == list(range(10))


@pytest.mark.requirement("HOST-2")
@pytest.mark.parametrize("timeout", [1.0, pytest.param(10.0, marks=pytest.mark.storm)])
def test_a_sync_beside_a_host_process_that_still_delivers_waits_or_says_so(
    server: WandbServer, tmp_path: Path, timeout: float
) -> None:
    """Within its timeout it says who delivers the run, or sends the rest; nothing comes twice."""
    program = Program(
        server, tmp_path, "blocking", "wandb.finish_timeout=0.5", "tracking.linger=60"
    )
    run_id = program.started()["id"]
    server.set_mode("silent", endpoint="file_stream")
    program.end()
    status, said, took = program.sync("--timeout", str(timeout))
    assert took < timeout + LENIENCE
    if timeout == 1.0:
        assert status == 1
        assert "delivers the run to it" in said[0]["reason"]
        assert "process" in said[0]["reason"]
    server.set_mode("ok")  # the host process goes on where it was
    wait_until_nothing_is_left(tmp_path, 60 + LENIENCE)
    assert program.sync()[0] == 0
    run = server.runs[run_id]
    assert [row["n"] for row in run.history] == list(range(10))
    assert (run.rows_received, run.exit_code) == (10, 0)


def test_without_network_a_key_alone_starts_offline(tmp_path: Path) -> None:
    """A key whose server cannot be reached means an offline run, at once."""
    with WandbServer() as server:
        server.close()
        program = Program(server, tmp_path, "asyncio", f"wandb.init_timeout={PATIENCE}")
        program.started()
        told = program.end()
    assert told.facts["active"] is True
    assert told.facts["init"] < PATIENCE * 0.75
    assert told.tracked["mode"] == "offline"
    assert told.rows() == list(range(10))
