"""A run that comes alive after its deadline is closed on the server, whoever still lives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from keisei.testing.wandb_server import WandbServer
from tests.support.storms import some_of
from tests.support.wandb_program import Program, Told, wait_until_nothing_is_left

pytestmark = pytest.mark.skipif(os.name == "nt", reason="looks for processes in /proc")
together = pytest.mark.xdist_group("late")  # what `lived` runs, one process looks at

# Every request of the SDK's; whether a server answers at all is asked by keisei itself.
SLOW = [
    "RunResumeStatus",
    "UpsertBucket",
    "Viewer",
    "ServerFeaturesQuery",
    "CreateRunFiles",
    "file_stream",
    "upload",
]
# What a busy machine may add: a deadline that does not hold is one of minutes.
LENIENCE = 20.0


class Case(NamedTuple):
    """How long each answer takes, how long the session lives on, and where the SDK is."""

    seconds: float
    lives_s: float
    in_process: bool
    number: int = 0


FEW = [Case(3.0, 0.0, False), Case(3.0, 7.0, False), Case(3.0, 7.0, True)]
MANY = [Case(5.0, 12.0 * (n % 2), False, n) for n in range(1, 101)]
MANY += [Case(5.0, 12.0, True, n) for n in range(1, 11)]
MANY = some_of(MANY)


class Late(NamedTuple):
    """What became of a late run: what the program told, and the server's account."""

    told: Told
    states: list[tuple[str, int | None]]
    open_s: float


def live_late(case: Case, home: Path) -> Late:
    """Run a program whose W&B comes too late, and ask the server once nothing of it is left."""
    with WandbServer() as server:
        for endpoint in SLOW:
            server.set_mode("slow", endpoint=endpoint, seconds=case.seconds)
        program = Program(
            server,
            home,
            "asyncio",
            "wandb.init_timeout=4",
            "wandb.offline_fallback=false",
            f"wandb.in_process={case.in_process}",
            "tracking.linger=60",
        )
        program.started()
        ends = time.monotonic() + case.lives_s
        told = program.end() if not case.lives_s else None
        server.wait_for(lambda: [run.complete for run in server.runs.values()] == [True], 120)
        open_s = max(time.monotonic() - run.created_at for run in server.runs.values())
        time.sleep(max(0.0, ends - time.monotonic()))
        told = told or program.end()
        wait_until_nothing_is_left(home, 60 + LENIENCE)
        runs = server.runs.values()
        return Late(told, [(run.state, run.exit_code) for run in runs], open_s)


@pytest.fixture(scope="module")
def lived(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Case, Future[Late]]]:
    """Run the cases that are asked for, beside each other: they mostly wait."""
    storm = "not storm" not in request.config.option.markexpr
    with ThreadPoolExecutor(5) as pool:
        yield {
            case: pool.submit(live_late, case, tmp_path_factory.mktemp("late"))
            for case in (FEW + MANY if storm else FEW)
        }


def closed(case: Case, late: Late) -> None:
    """Check that a late run was closed as failed, as soon as the SDK knew it."""
    assert late.told.facts["active"] is False, late.told.errors
    assert late.told.facts["init"] < 4 + LENIENCE
    assert late.told.facts["finish"] < LENIENCE
    assert "wandb did not start" in late.told.errors
    assert late.told.exit_s < LENIENCE
    assert late.states == [("failed", 1)]
    assert late.open_s < case.seconds + LENIENCE


@together
@pytest.mark.requirement("WB-8")
@pytest.mark.parametrize("case", FEW, ids=str)
def test_a_late_run_is_closed(lived: dict[Case, Future[Late]], case: Case) -> None:
    """With a server whose every answer takes seconds, whether the session ends or lives on."""
    closed(case, lived[case].result())


@together
@pytest.mark.storm
def test_a_hundred_late_runs_are_closed(lived: dict[Case, Future[Late]]) -> None:
    """Each of them, the session having ended at once or not."""
    lates = {case: lived[case].result() for case in MANY}
    for case, late in lates.items():
        closed(case, late)
    print(
        f"\n{len(lates)} closed, open at most {max(late.open_s for late in lates.values()):.2f} s"
    )


@pytest.mark.requirement("WB-8", "WB-9")
def test_a_late_run_is_closed_while_the_session_goes_on_offline(
    server: WandbServer, tmp_path: Path
) -> None:
    """It is ended as failed within a second of its birth; a sync then gives it the rows."""
    server.set_mode("silent", endpoint="UpsertBucket")
    program = Program(server, tmp_path, "asyncio", "wandb.init_timeout=4")
    program.started()
    server.set_mode("ok", endpoint="UpsertBucket")
    server.wait_for(lambda: any(run.complete for run in server.runs.values()), timeout=60)
    (run,) = server.runs.values()
    assert run.exit_code == 1
    assert run.ended_at is not None
    assert run.ended_at - run.created_at < LENIENCE
    told = program.end()
    assert told.code == 0
    assert told.tracked["upload_as"] == run.id == told.facts["id"]
    assert program.sync()[0] == 0
    assert [row["n"] for row in run.history] == list(range(10))
    assert (run.exit_code, run.rows_received) == (0, 10)
