"""When a checkpoint is due and which ones are kept: plain arithmetic, over any history."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from pydantic import ValidationError

from keisei import Checkpoint, CheckpointsConfig, KeepBest
from keisei.checkpoints import policy


def saved(step: int | None, **metrics: float) -> Checkpoint:
    """Return a checkpoint of a step, with metrics."""
    return Checkpoint(step, 1, f"/models/checkpoint_{step}.ckpt", 1, "d", metrics, "t")


def steps(paths: Any) -> list[int]:
    """Return the steps of what is kept."""
    return sorted(int(path.removeprefix("/models/checkpoint_")[:-5]) for path in paths)


@pytest.mark.requirement("CKPT-5")
@pytest.mark.parametrize(
    ("fields", "step", "due"),
    [
        ({"interval": 1000}, -1, 1000),
        ({"interval": 1000}, 999, 1000),
        ({"interval": 1000}, 1000, 2000),
        ({"interval": 1000}, 2500, 3000),
        ({"interval": 1}, 7, 8),
        ({"interval": None}, 7, policy.NEVER),
        ({"interval": None, "at_steps": [0, 5]}, -1, 0),
        ({"interval": None, "at_steps": [5, 0]}, 0, 5),
        ({"interval": 10, "at_steps": [5]}, 3, 5),
        ({"interval": 10, "at_steps": [5]}, 5, 10),
        ({"interval": 10, "at_steps": [5]}, 12, 20),
    ],
)
def test_the_next_step_that_is_due(fields: dict[str, Any], step: int, due: int) -> None:
    """It is the next multiple of the interval or the next given step, whichever comes first."""
    assert policy.next_due(CheckpointsConfig(**fields), step) == due


@pytest.mark.requirement("CKPT-5")
def test_what_is_due_does_not_depend_on_where_a_run_was_interrupted() -> None:
    """A resumed run saves at the same steps as one that was never interrupted."""
    chosen = CheckpointsConfig(interval=300, at_steps=[7, 650])

    def due(first: int) -> list[int]:
        found, step = [], first
        while (step := policy.next_due(chosen, step)) < 3000:
            found.append(step)
        return found

    whole = due(-1)
    for begin in (0, 7, 300, 301, 649, 2999):
        assert due(begin) == [step for step in whole if step > begin]


@pytest.mark.requirement("CKPT-5")
@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, [80, 90, 100]),
        ({"keep_last": 1}, [100]),
        ({"keep_last": None}, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]),
        ({"keep_last": None, "keep_every": 50}, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]),
        ({"keep_last": 1, "keep_every": 40}, [40, 80, 100]),
        ({"keep_last": 1, "keep_best": KeepBest(metric="loss", mode="min")}, [30, 100]),
        ({"keep_last": 1, "keep_best": KeepBest(metric="loss", mode="max")}, [50, 100]),
        ({"keep_last": 1, "keep_best": KeepBest(metric="loss", mode="min", count=3)},
         [20, 30, 60, 100]),
        ({"keep_last": 2, "keep_every": 20, "keep_best": KeepBest(metric="loss", mode="max")},
         [20, 40, 50, 60, 80, 90, 100]),
        ({"keep_last": 1, "keep_best": KeepBest(metric="nobody/logged", mode="max")}, [100]),
    ],
)  # fmt: skip
def test_what_is_kept(fields: dict[str, Any], kept: list[int]) -> None:
    """The last n, the best n, every k-th, all, and any of them together."""
    losses = {10: 3.0, 20: 2.0, 30: 1.0, 40: math.nan, 50: 9.0, 60: 2.0, 70: 4.0}
    there = [saved(step, loss=loss) for step, loss in losses.items()]
    there += [saved(80), saved(90), saved(100, accuracy=1.0)]
    assert steps(policy.kept(CheckpointsConfig(**fields), there)) == kept


@pytest.mark.requirement("CKPT-5")
def test_the_best_is_by_the_metrics_that_are_there() -> None:
    """NaN and what was never logged is none; of equals the newer; infinity is a number."""
    low = KeepBest(metric="loss", mode="min")
    assert policy.best([], low) is None
    assert policy.best([saved(1), saved(2, loss=math.nan), saved(None, loss=0.0)], low) is None
    equals = [saved(1, loss=0.5), saved(2, loss=0.5), saved(3, loss=0.6)]
    found = policy.best(equals, low)
    assert found is not None
    assert found.step == 2
    ends = [saved(1, loss=math.inf), saved(2, loss=-math.inf), saved(3, loss=0.0)]
    assert [c.step for c in policy.ranked(ends, low)] == [2, 3, 1]


@pytest.mark.requirement("CKPT-5")
def test_no_policy_lets_the_newest_go() -> None:
    """Whatever is asked for, over any history: the newest stays, and a path is kept or not."""
    seed = random.randrange(10**6)
    draw = random.Random(seed)
    for _ in range(500):
        best = KeepBest(metric="m", mode=draw.choice(["min", "max"]), count=draw.randint(1, 4))
        chosen = CheckpointsConfig(
            keep_last=draw.choice([None, 1, 2, 5]),
            keep_every=draw.choice([None, 1, 3, 10]),
            keep_best=draw.choice([None, best]),
        )
        numbers = draw.sample(range(100), draw.randint(1, 20))
        values = {n: draw.choice([math.nan, math.inf, draw.random()]) for n in numbers}
        there = [saved(n, m=values[n]) for n in numbers]
        kept = set(policy.kept(chosen, there))
        assert there[-1].path in kept, seed
        assert kept <= {checkpoint.path for checkpoint in there}
        most = policy.most_kept(chosen)
        assert most is None or len(kept) <= most, seed
        # Keeping is stable: what is kept now is kept when nothing is added.
        again = [checkpoint for checkpoint in there if checkpoint.path in kept]
        assert set(policy.kept(chosen, again)) == kept, seed


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval": 0},
        {"interval": -5},
        {"keep_last": 0},
        {"keep_every": 0},
        {"every_seconds": 0},
        {"every_seconds": math.nan},
        {"at_steps": [-1]},
        {"keep_best": {"metric": "loss"}},
        {"keep_best": {"metric": "loss", "mode": "lowest"}},
        {"keep_best": {"metric": "", "mode": "min"}},
        {"unknown": 1},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """By the schema, as any other section of the config."""
    with pytest.raises(ValidationError):
        CheckpointsConfig(**wrong)


@pytest.mark.requirement("CKPT-5")
@pytest.mark.parametrize(
    ("grace", "slowest", "ending", "wait"),
    [
        (30.0, 4.0, 1.0, 23.0),
        (30.0, 0.0, 1.0, 21.5),
        (30.0, 30.0, 1.0, 0.0),
        (30.0, 4.0, 100.0, 16.5),
        (2.0, 0.0, 1.0, 1.0),
    ],
)
def test_a_preempted_run_goes_on_only_as_long_as_a_save_still_fits(
    grace: float, slowest: float, ending: float, wait: float
) -> None:
    """What is left after it is for a save half as slow again as the slowest one, and the end."""
    assert policy.patience(grace, slowest, ending) == pytest.approx(wait)
