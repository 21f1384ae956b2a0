"""A saver that is killed leaves each checkpoint whole or absent, and always one that loads."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.pointers import pointed
from tests.support.checkpoints import (
    SaveDeath,
    keep,
    leftovers,
    restored,
    save,
    unsound,
)
from tests.support.crashes import Crashes, Told, crashes
from tests.support.storms import repetitions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")


@pytest.fixture
def killer() -> Iterator[Crashes]:
    """A process that forks children and sees them die."""
    with crashes("tests.support.checkpoints") as running:
        yield running


def last_told(told: list[Told], otherwise: int) -> int:
    """Return the last step that a child was told is saved."""
    return max(
        [step for what, *step_ in told if what == "saved" for step in step_], default=otherwise
    )


def look(path: Path, told: list[Told], before: int) -> int:
    """Check what a dead saver has left, and return the step that is restored.

    Args:
        path: the models directory.
        told: what it was told.
        before: the step that was saved before it began.
    """
    with OpenDirectory(str(path)) as models:
        assert unsound(models) == []
        step = restored(models).stored.manifest.step
        assert step is not None
        assert step >= last_told(told, before)
        name = pointed(models, "latest")
        assert name is not None
        assert models.holds(name)
        assert restored(models, int(name[len("checkpoint_") : -len(".ckpt")]))
        return step


def go_on(path: Path, step: int) -> None:
    """Save the next step, without help; check that nothing of the dead one is left."""
    with OpenDirectory(str(path)) as models:
        save(models, step)
        keep(models, step)
        assert leftovers(models) == []
        assert restored(models).stored.manifest.step == step
        assert pointed(models, "latest") == f"checkpoint_{step}.ckpt"


@pytest.mark.requirement("CKPT-3")
def test_killed_before_each_file_operation_of_a_save(killer: Crashes, fast: Path) -> None:
    """Whatever call is the last, what stands there verifies, what was told is there, and the next
    save leaves nothing over: of a first save, and of one that removes an older checkpoint."""
    kills = 0
    for earlier in (0, 2):
        finished = fast / f"after-{earlier}"
        finished.mkdir()
        with OpenDirectory(str(finished)) as models:
            for step in range(earlier):
                save(models, step)
        dead_before = 0
        while True:
            dead_before += 1
            path = fast / f"{earlier}-{dead_before}"
            shutil.copytree(finished, path, symlinks=True)
            told, killed = killer.die(SaveDeath(str(path), earlier, before=dead_before))
            if earlier or ["saved", 0] in told:
                look(path, told, earlier - 1)
            if not killed:
                assert told[-1] == ["calls", dead_before - 1]
                break
            kills += 1
            go_on(path, earlier)  # the same step: it may stand there already
            shutil.rmtree(path)
    print(f"kills before each file operation of a save: {kills}")
    assert kills > 100


def random_kills(killer: Crashes, fast: Path, count: int, seed: int) -> None:
    """Kill savers at random instants, one after the other in one directory."""
    rng = random.Random(seed)
    path = fast / "models"
    path.mkdir()
    go_on(path, 0)
    step, saves = 0, 0
    for _ in range(count):
        death = SaveDeath(str(path), step + 1, after=rng.randint(1, 3), later=rng.uniform(0, 0.02))
        told, killed = killer.die(death)
        assert killed, told
        before, step = step, look(path, told, step)
        saves += step - before
        if rng.random() < 0.2:
            step += 1
            go_on(path, step)
    print(f"kills at random instants: {count}; saves meanwhile: {saves}; seed {seed}")
    assert saves >= count


def test_killed_at_random_instants(killer: Crashes, fast: Path) -> None:
    """After each kill all that stands there verifies, and the last one that was told loads."""
    random_kills(killer, fast, 40, seed=12)


@pytest.mark.storm
def test_killed_at_1000_random_instants(killer: Crashes, fast: Path) -> None:
    """The same, 1,000 times."""
    random_kills(killer, fast, repetitions(1000), seed=random.randrange(1 << 32))
