"""A member that is killed at any instant: what it had acknowledged is there, its part has died.

A helper without threads forks the members and kills them. Every few of them take up the same role,
so that each goes on behind what the one before has left.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest

from keisei import SessionManager
from tests.conftest import MakeConfig
from tests.support.storms import repetitions

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

HELPER = """
import json, mmap, os, pickle, random, signal, struct, sys, time
from collections import Counter
from keisei import SessionMember
from keisei._io.directories import OpenDirectory
from keisei.journal.reader import read_run
from keisei.run.parts import parts_of

with open(sys.argv[1], "rb") as file:
    handle = pickle.load(file)
kills, chance = int(sys.argv[2]), random.Random(int(sys.argv[3]))
told = mmap.mmap(-1, 8)  # shared: the rows whose flush has returned


def work(role, number, every):
    row = 0
    with SessionMember(handle, role) as member:
        while True:
            for _ in range(every):
                member.log_metrics({"life": number, "row": row}, row)
                row += 1
            member.flush()
            told[0:8] = struct.pack("<q", row)


result = {"kills": 0, "acknowledged": 0, "lost": 0, "wrong": 0, "alive": 0, "known": 0}
for number in range(kills):
    role = f"a{sys.argv[3]}-{number // 5}"
    told[:] = bytes(8)
    every = chance.choice([1, 3, 40, 500])
    child = os.fork()
    if not child:
        try:
            work(role, number, every)
        finally:
            os._exit(1)
    if number % 2:  # half of them after the first flush, the others at any instant
        give_up = time.monotonic() + 10
        while told[:] == bytes(8) and time.monotonic() < give_up:
            time.sleep(0.0005)
    time.sleep(chance.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    result["kills"] += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with OpenDirectory(handle.directory) as directory:
        states = {part.part: part.state for part in parts_of(directory)}
    result["alive"] += states.get(role, "died") != "died"  # it may not have come to its claim
    result["known"] += role in states
    acknowledged = struct.unpack("<q", told[:])[0]
    rows = list(read_run(handle.directory).rows(part=role))
    lives = Counter(row.values["life"] for row in rows)
    mine = [row.values["row"] for row in rows if row.values["life"] == number]
    result["acknowledged"] += acknowledged
    result["lost"] += max(0, acknowledged - len(mine))
    result["wrong"] += mine != list(range(len(mine)))
    result["wrong"] += [row.seq for row in rows] != list(range(len(rows)))
    if number % 5:  # what an earlier life has left stays as it was
        result["wrong"] += any(lives[life] != count for life, count in before.items())
    before = dict(lives)
print(json.dumps(result))
"""


def kill_members(session: SessionManager[Any], kills: int, seed: int) -> dict[str, int]:
    """Kill members of a session's run at random instants; return what was found after each."""
    path = f"{session.run_artifact_dir}.handle"
    with open(path, "wb") as file:
        pickle.dump(session.handle(), file)
    command = [sys.executable, "-c", HELPER, path, str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    return result


@pytest.mark.requirement("RANK-5")
def test_a_killed_member_loses_nothing_that_was_acknowledged(make_config: MakeConfig) -> None:
    """At 40 random instants: its rows are there, its part has died at once, its role goes on."""
    with SessionManager(make_config(), run_name="r") as session:
        found = kill_members(session, kills=40, seed=3)
    print(f"SIGKILL: {found}")
    assert found["kills"] == 40
    assert found["known"] >= 20
    assert found["acknowledged"] > 100
    assert (found["lost"], found["wrong"], found["alive"]) == (0, 0, 0)


@pytest.mark.storm
def test_many_killed_members_lose_nothing_that_was_acknowledged(make_config: MakeConfig) -> None:
    """The same at 1,000 instants, or the share of them that is asked for."""
    with SessionManager(make_config(), run_name="r") as session:
        for seed in range(repetitions(10)):
            found = kill_members(session, kills=100, seed=seed + 100)
            print(f"SIGKILL: {found}")
            assert (found["lost"], found["wrong"], found["alive"]) == (0, 0, 0)
