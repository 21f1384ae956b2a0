"""A program that is killed while it logs: its host process gives W&B the rest and the end."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keisei.journal.reader import read_run
from keisei.testing.wandb_server import WandbServer
from tests.support.storms import repetitions
from tests.support.wandb_program import Program, until, wait_until_nothing_is_left

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")

WITHIN = 60.0  # seconds, far above what it takes


def killed_after(seconds: float, home: Path) -> tuple[list[int], list[int], int, float]:
    """Kill a program that logs; returns the rows of journal and server, how many came, and when."""
    with WandbServer() as server:
        program = Program(server, home, "blocking", rows=0)
        run_id = program.started()["id"]
        program.tell("log")
        until(lambda: program.run.joinpath("metrics.1.journal").exists())
        time.sleep(seconds)
        program.kill()
        died = time.monotonic()
        server.wait_for(lambda: server.runs[run_id].complete, timeout=WITHIN)
        took = time.monotonic() - died
        run = server.runs[run_id]
        assert run.exit_code == 1
        wait_until_nothing_is_left(home, WITHIN)
        journal = [int(row.values["n"]) for row in read_run(str(program.run)).rows()]
        return journal, [row["n"] for row in run.history], run.rows_received, took


@pytest.mark.requirement("HOST-3")
@pytest.mark.parametrize("kills", [3, pytest.param(repetitions(50), marks=pytest.mark.storm)])
def test_the_server_has_the_journals_rows_and_the_true_end(tmp_path: Path, kills: int) -> None:
    """Each row once, and exit code 1, soon after the kill."""
    moments = [random.Random(n).uniform(0.0, 1.5) for n in range(kills)]
    homes = [tmp_path / str(n) for n in range(kills)]
    for home in homes:
        home.mkdir()
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(killed_after, moments, homes))
    for journal, arrived, received, _ in results:
        assert journal == list(range(len(journal)))
        assert arrived == journal
        assert received == len(journal)
    print(
        f"\n{kills} kills, {sum(len(r[0]) for r in results)} rows, none lost or twice; the end "
        f"came within {max(r[3] for r in results):.2f} s"
    )
