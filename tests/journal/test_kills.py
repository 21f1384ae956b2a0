"""Killed at any instant, a run has every row whose flush had returned, and a whole prefix of all.

A helper without threads forks the runs and kills them, so that 200 of them take seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.storms import repetitions

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

KILLS = 200

HELPER = """
import json, mmap, os, random, shutil, signal, struct, sys, time
from keisei.journal.reader import read_run, repair
from keisei.journal.writer import Journal

place, kills, chance = sys.argv[1], int(sys.argv[2]), random.Random(int(sys.argv[3]))
told = mmap.mmap(-1, 16)  # shared: the rows logged, and those whose flush has returned


def train(run, durability, every):
    journal = Journal(run, 1, durability=durability, max_delay=0.001, capacity=10_000_000)
    row = 0
    while True:
        for _ in range(every):
            journal.log_metrics({"row": row, "a": row / 3, "b": row / 7, "flag": row % 2 == 0}, row)
            row += 1
        told[0:8] = struct.pack("<q", row)
        journal.flush()
        told[8:16] = struct.pack("<q", row)


result = {"kills": 0, "acknowledged": 0, "lost": 0, "wrong": 0, "torn": 0, "flushed": 0}
for number in range(kills):
    run = os.path.join(place, str(number))
    os.mkdir(run)
    told[:] = bytes(16)
    durability = ("buffered", "line", "fsync")[number % 3]
    every = chance.choice([1, 3, 40, 500])
    child = os.fork()
    if not child:
        try:
            train(run, durability, every)
        finally:
            os._exit(1)
    if number % 2:  # half of them after the first flush, the others at any instant
        give_up = time.monotonic() + 10
        while told[8:16] == bytes(8) and time.monotonic() < give_up:
            time.sleep(0.0005)
    time.sleep(chance.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    result["kills"] += os.WIFSIGNALED(status)
    logged, acknowledged = struct.unpack("<qq", told[:])
    journal = os.path.join(run, "metrics.1.journal")
    torn = repair(journal) if os.path.exists(journal) else 0
    rows = list(read_run(run).rows())
    wrong = [
        row for i, row in enumerate(rows)
        if (row.seq, row.step) != (i, i)
        or row.values != {"row": i, "a": i / 3, "b": i / 7, "flag": i % 2 == 0}
    ]
    result["acknowledged"] += acknowledged
    result["flushed"] += acknowledged > 0
    result["lost"] += max(0, acknowledged - len(rows))
    result["wrong"] += len(wrong) + (read_run(run).damage() != (0, 0, 0, 0, 0))
    result["torn"] += torn > 0
    shutil.rmtree(run)
print(json.dumps(result))
"""


def kill_runs(place: Path, seed: int, kills: int = KILLS) -> dict[str, int]:
    """Kill runs at random instants, and give what was found after them."""
    command = [sys.executable, "-c", HELPER, str(place), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    return result


def test_a_killed_run_has_every_acknowledged_row(tmp_path: Path) -> None:
    """At 200 random instants, with each durability: no acknowledged row is lost, none is wrong."""
    found = kill_runs(tmp_path, seed=20)
    print(f"SIGKILL: {found}")
    assert found["kills"] == KILLS
    assert found["flushed"] >= KILLS / 2
    assert found["acknowledged"] > 1000
    assert (found["lost"], found["wrong"]) == (0, 0)


@pytest.mark.storm
def test_many_killed_runs_have_every_acknowledged_row(tmp_path: Path) -> None:
    """The same at 3,000 instants, or the share of them that is asked for."""
    for seed in range(repetitions(15)):
        found = kill_runs(tmp_path, seed)
        assert (found["lost"], found["wrong"]) == (0, 0)
