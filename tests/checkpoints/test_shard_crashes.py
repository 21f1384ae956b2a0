"""A rank that is killed while all ranks save leaves each checkpoint whole or absent, for all."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.pointers import pointed
from keisei.checkpoints.shards import Reader
from tests.support.checkpoints import keep, leftovers, unsound
from tests.support.crashes import Crashes, Told, crashes
from tests.support.shards import WORLD, RankDeath, load_shard, save_all
from tests.support.storms import repetitions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")


@pytest.fixture
def killer() -> Iterator[Crashes]:
    """A process that forks children and sees them die."""
    with crashes("tests.support.shards") as running:
        yield running


def look(path: Path, told: list[Told], before: int) -> int:
    """Check what a dead rank has left: all ranks restore one step, none older than was told.

    Args:
        path: the models directory.
        told: what the ranks were told.
        before: the step that was saved before they began.

    Returns:
        The step.
    """
    steps = [step for what, *told_step in told if what == "saved" for step in told_step[:1]]
    with OpenDirectory(str(path)) as models:
        assert unsound(models) == []
        restored = {
            load_shard(models, Reader(rank, WORLD)).stored.manifest.step for rank in range(WORLD)
        }
        (step,) = restored
        assert step is not None
        assert step >= max(steps, default=before)
        assert (name := pointed(models, "latest")) is not None
        assert models.holds(name)
        return step


def go_on(path: Path, step: int, saves: int) -> None:
    """Save a step as all ranks, without help; check that nothing of the dead one is left."""
    for outcome in save_all(str(path), step, saves=saves).values():
        assert not isinstance(outcome, BaseException), outcome
    with OpenDirectory(str(path)) as models:
        keep(models, step)
        for rank in range(WORLD):
            assert load_shard(models, Reader(rank, WORLD)).stored.manifest.step == step
        assert [name for name in leftovers(models) if step_of_staged(name) != step] == []


def step_of_staged(name: str) -> int:
    """Return the step of what is staged: of one that stood there already a note is left."""
    return int(name.removeprefix(".checkpoint_").partition(".")[0])


def kills_before_each(killer: Crashes, fast: Path, rank: int, stride: int) -> None:
    """Kill a rank before its first file operation, then so many later, and so on to the end."""
    finished = fast / "finished"
    finished.mkdir()
    save_all(str(finished), 0)
    kills = committed = 0
    dead_before = 1
    while True:
        path = fast / str(dead_before)
        shutil.copytree(finished, path, symlinks=True)
        told, killed = killer.die(RankDeath(str(path), 1, rank, before=dead_before))
        step = look(path, told, 0)
        if not killed:
            assert told[-1][0] == "calls"
            break
        kills += 1
        committed += step == 1
        go_on(path, 1, saves=2)
        shutil.rmtree(path)
        dead_before += stride
    print(f"kills of rank {rank} before file operations: {kills}, of them {committed} whole")
    assert kills * stride > 40
    assert 0 < committed < kills


@pytest.mark.requirement("RANK-7")
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_before_file_operations_of_a_shard_or_of_the_commit(
    killer: Crashes, fast: Path, rank: int
) -> None:
    """Whatever call of a rank is the last: what stands there verifies, all ranks restore the same
    step, whoever was told that it is saved finds it, and the next save needs no help."""
    kills_before_each(killer, fast, rank, stride=5)


@pytest.mark.storm
@pytest.mark.parametrize("rank", range(WORLD))
def test_killed_before_each_file_operation_of_a_shard_or_of_the_commit(
    killer: Crashes, fast: Path, rank: int
) -> None:
    """The same, before every single one."""
    kills_before_each(killer, fast, rank, stride=1)


def random_kills(killer: Crashes, fast: Path, count: int, seed: int) -> None:
    """Kill ranks at random instants, one after the other in one directory."""
    rng = random.Random(seed)
    path = fast / "models"
    path.mkdir()
    go_on(path, 0, saves=1)
    step = saves = 0
    for number in range(count):
        death = RankDeath(
            str(path), step + 1, number % WORLD, after=rng.randint(1, 5), later=rng.uniform(0, 0.05)
        )
        told, killed = killer.die(death)
        assert killed, told
        before, step = step, look(path, told, step)
        saves += step - before
        step += 1
        go_on(path, step, saves=2)
    print(f"ranks killed at random instants: {count}; saves meanwhile: {saves}; seed {seed}")


def test_killed_at_random_instants(killer: Crashes, fast: Path) -> None:
    """After each kill all ranks restore one step, and nothing that was told is lost."""
    random_kills(killer, fast, 6, seed=7)


@pytest.mark.storm
def test_killed_at_500_random_instants(killer: Crashes, fast: Path) -> None:
    """The same, 500 times."""
    random_kills(killer, fast, repetitions(500), seed=random.randrange(1 << 32))
