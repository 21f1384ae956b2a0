"""The ranks of a preempted run end at the same safe point, and none waits for one that has left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from keisei._io.held import HeldDirectory
from keisei.distributed.meeting import Decision, Meeting, Standing, State, decide
from tests.support.file_faults import fast_place
from tests.support.storms import repetitions

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("others", "decision"),
    [
        ([Standing(5, "waits"), Standing(5, "waits")], "end"),
        ([Standing(5, "waits"), None], "wait"),
        ([Standing(5, "waits"), Standing(4, "waits")], "wait"),
        ([Standing(5, "waits"), Standing(4, "goes on")], "wait"),
        ([Standing(5, "goes on"), None], "go on"),
        ([Standing(6, "waits"), Standing(5, "waits")], "go on"),
        ([Standing(-1, "ends"), None], "end"),
        ([], "end"),
    ],
)
def test_what_a_rank_does_at_a_safe_point(
    others: list[Standing | None], decision: Decision
) -> None:
    """It goes on while another one is further, and ends where all wait."""
    assert decide(5, others) == decision


def test_a_standing_is_read_back_and_nothing_else() -> None:
    """What is damaged counts as not known."""
    states: tuple[State, ...] = ("waits", "goes on", "ends")
    for step, state in product((-1, 0, 10**12), states):
        assert Standing.parsed(Standing(step, state).text()) == Standing(step, state)
    for text in (b"", b"5", b"5 sleeps", b"x waits", b"\xff\xff", b"5waits"):
        assert Standing.parsed(text) is None


def test_no_two_ranks_leave_each_other() -> None:
    """At random interleavings of ranks in step, which learn of it at any time: they end at one."""
    for seed in range(1000):
        chance = random.Random(seed)
        ranks = range(chance.randint(2, 4))
        steps, at_safe_point = [0 for _ in ranks], [False for _ in ranks]
        known: list[Standing | None] = [None for _ in ranks]
        ended: list[int | None] = [None for _ in ranks]
        for _ in range(10**4):
            rank = chance.choice(ranks)
            step, others = steps[rank], [known[other] for other in ranks if other != rank]
            if ended[rank] is not None:
                continue
            if known[rank] is None and chance.random() < 0.05:  # its watch learns of it
                known[rank] = Standing(
                    step if at_safe_point[rank] is False else step - 1, "goes on"
                )
            elif at_safe_point[rank] and known[rank] is None:
                at_safe_point[rank] = False
            elif at_safe_point[rank]:
                known[rank] = Standing(step, "waits")
                decision = decide(step, others)
                if decision == "end":
                    ended[rank] = step
                elif decision == "go on":
                    known[rank] = Standing(step, "goes on")
                    at_safe_point[rank] = False
            elif all(
                steps[other] > step or (steps[other] == step and not at_safe_point[other])
                for other in ranks
            ):  # all have entered the next step, and so it comes to its end
                steps[rank] += 1
                at_safe_point[rank] = True
            if None not in ended:
                break
        assert len(set(ended) - {None}) == len(set(ended)) == 1, (seed, ended, steps, known)


def test_a_safe_point_that_was_passed_stays_passed(tmp_path: Path) -> None:
    """A rank that learns of the preemption as it comes to one has told the others that it goes on,
    and some may have gone on by then."""
    meetings = [Meeting(HeldDirectory(str(tmp_path)), 1, rank, 2) for rank in range(2)]
    meetings[0].learn(5, ends=False)
    assert meetings[1].look(5) == "go on"
    assert meetings[0].look(5) == "go on"
    assert meetings[0].look(6) == "wait"
    assert meetings[1].look(6) == "end"
    assert meetings[0].look(6) == "end"


def preempted_ranks(place: Path, ranks: int, face: str, chance: random.Random) -> None:
    """Preempt one of several ranks that train in step, and check where they end."""
    preempted, step = chance.randrange(ranks), chance.randrange(1, 60)
    command = [sys.executable, "-m", "tests.support.stepping_ranks", str(place)]
    command += [str(ranks), str(preempted), str(step), face]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["exits"] == [128 + signal.SIGUSR2] * ranks, (found, done.stderr)
    assert len(set(found["steps"])) == 1, (found, preempted, step)
    run = place / "runs" / "r"
    assert json.loads((run / "session.json").read_bytes())["status"] == "preempted"
    for rank in range(1, ranks):
        part = json.loads((run / "parts" / f"1.rank{rank}.json").read_bytes())
        assert part["status"] == "preempted"
    last = found["steps"][0]
    assert (run / "models" / f"checkpoint_{last}.ckpt" / "manifest.json").exists()


@pytest.mark.requirement("RANK-6")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR2")
@pytest.mark.parametrize("face", ["asyncio", "blocking"])
def test_one_ranks_preemption_is_everybodys(tmp_path: Path, face: str) -> None:
    """They save and end at one step, as preempted, although each step needs all of them."""
    with fast_place(tmp_path) as place:
        preempted_ranks(place, 3, face, random.Random(random.randrange(10**6)))


@pytest.mark.storm
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR2")
def test_many_preemptions_of_ranks(tmp_path: Path) -> None:
    """The same, 30 times, with 2 to 5 ranks."""
    chance = random.Random(random.randrange(10**6))
    rounds = repetitions(30)
    with fast_place(tmp_path) as place:
        for number in range(rounds):
            root = place / str(number)
            root.mkdir()
            face = chance.choice(["asyncio", "trio", "blocking"])
            preempted_ranks(root, chance.randint(2, 5), face, chance)
    print(f"{rounds} preemptions of 2 to 5 ranks that train in step: all end at one step")
