"""CartPole is killed, started again with the same command, and ends as if it never had been."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.cartpole.config import CartPoleConfig
from examples.cartpole.rollout import Rollout
from examples.cartpole.training import Training
from keisei import load_config
from keisei.journal.reader import read_run
from tests.support.storms import some_of

ROOT = Path(__file__).parent.parent
TINY = [
    "training.total_timesteps=8192",
    "training.steps_per_epoch=512",
    "cartpole.rollout_tasks=2",
    "cartpole.hidden=8",
    "cartpole.passes=2",
    "cartpole.evaluation_episodes=2",
    "checkpoints.interval=1024",
    "tracking.trackers=[]",
]
EPOCHS = 16
pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills as POSIX does")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield each leaf of a state: its path, and its bits."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}/{number}")
    elif isinstance(value, np.ndarray):
        yield path, (value.dtype.str, value.shape, value.tobytes())
    else:
        yield path, value


async def test_a_training_goes_on_from_its_state_bit_for_bit() -> None:
    """From the state after any epoch, the next ones end in the same weights and episodes."""
    config = load_config(overrides=[*TINY[:-2], "env.seed=3"], model=CartPoleConfig)
    straight, states = Training(config), []
    for _ in range(5):
        await straight.epoch(lambda metrics, step: None)
        states.append(copy.deepcopy(straight.state()))
    for begin in range(4):
        resumed = Training(config)
        resumed.restore(copy.deepcopy(states[begin]))
        for expected in states[begin + 1 :]:
            await resumed.epoch(lambda metrics, step: None)
            assert dict(leaves(resumed.state())) == dict(leaves(expected))


async def test_an_episodes_time_goes_on() -> None:
    """An environment that is restored in the middle of an episode is cut off at the same step."""
    settings = CartPoleConfig().cartpole
    policy = Training(CartPoleConfig()).policy

    def rollout() -> Rollout:
        made = Rollout(settings, np.random.default_rng(1))
        for env in made.envs.envs:
            env.set_wrapper_attr("_max_episode_steps", 8)
        return made

    straight, resumed = rollout(), rollout()
    await straight.play(policy, 5)
    resumed.restore(copy.deepcopy(straight.state()))
    expected, found = await straight.play(policy, 5), await resumed.play(policy, 5)
    assert expected.episodes == ((3, 8.0),) * settings.envs_per_task == found.episodes
    assert found.observations.tobytes() == expected.observations.tobytes()


class Program:
    """The example in a process of its own, as `python -m examples.cartpole --run-name r`.

    Args:
        runs: the root of its runs.
    """

    def __init__(self, runs: Path) -> None:
        self._output = open(runs.with_suffix(".out"), "ab")  # noqa: SIM115 - closed with it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "examples.cartpole", "--run-name", "r", *TINY],
            cwd=ROOT,
            env={**os.environ, "KEISEI_LOG_DIR": str(runs)},
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        self._output.close()

    def end(self) -> int:
        """Return the exit status, once it has ended."""
        try:
            return self._process.wait(timeout=120)
        finally:
            self._output.close()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None


def curve(run: Path) -> dict[str, list[tuple[int | None, object]]]:
    """Return the steps and values of each metric but speeds, bit for bit, attempts merged."""
    found: dict[str, list[tuple[int | None, object]]] = {}
    for row in read_run(run).rows():
        for name, value in row.values.items():
            if not name.startswith("speed/"):
                found.setdefault(name, []).append((row.step, value))
    return found


def result(run: Path) -> dict[str, object]:
    """Return what two runs are compared by: their curves, evaluations and weights."""
    evaluations = [
        {key: value for key, value in json.loads(line).items() if key in ("step", "values")}
        for line in (run / "evaluation.log").read_text(encoding="utf-8").splitlines()
    ]
    model = run / "models" / "final_model"
    return {
        "curve": curve(run),
        "evaluations": evaluations,
        "weights": (model / "arrays.safetensors").read_bytes(),
        "digest": json.loads((model / "manifest.json").read_bytes())["manifest"]["digest"],
        "last state": json.loads((run / "models" / "latest" / "manifest.json").read_bytes())[
            "manifest"
        ]["digest"],
        "status": json.loads((run / "session.json").read_bytes())["status"],
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], float]:
    """What a run comes to that is never killed, and how many seconds it takes."""
    runs = tmp_path_factory.mktemp("uninterrupted") / "runs"
    began = time.monotonic()
    assert Program(runs).end() == 0
    took = time.monotonic() - began
    found = result(runs / "r")
    assert len(found["curve"]["train/mean_return"]) == EPOCHS  # type: ignore[index]
    return found, took


def checkpoints(run: Path) -> int:
    """Return how many checkpoints are committed."""
    return sum(1 for _ in run.glob("models/checkpoint_*.ckpt/manifest.json"))


def test_a_killed_run_ends_as_if_it_never_had_been(
    uninterrupted: tuple[dict[str, object], float], tmp_path: Path
) -> None:
    """Killed once before its first checkpoint and once after: same curve, weights, status."""
    runs = tmp_path / "runs"
    program = Program(runs)
    while program.alive and not (runs / "r" / "session.json").exists():
        time.sleep(0.002)
    program.kill()
    program = Program(runs)
    while program.alive and not checkpoints(runs / "r"):
        time.sleep(0.002)
    program.kill()
    assert checkpoints(runs / "r")
    assert Program(runs).end() == 0, runs.with_suffix(".out").read_text()
    assert result(runs / "r") == uninterrupted[0]
    assert json.loads((runs / "r" / "session.json").read_bytes())["attempt"] == 3


@pytest.mark.storm
@pytest.mark.parametrize("number", some_of(range(50)))
def test_fifty_kills_at_random_instants(
    uninterrupted: tuple[dict[str, object], float], tmp_path: Path, number: int
) -> None:
    """At any instant of its life, at times twice: 50 of 50 end with the same curve and weights."""
    expected, took = uninterrupted
    rng = random.Random(number)
    runs = tmp_path / "runs"
    for _ in range(1 + number % 2):
        program = Program(runs)
        time.sleep(rng.uniform(0.2, 1.0) * took)
        program.kill()
    assert Program(runs).end() == 0, runs.with_suffix(".out").read_text()
    assert result(runs / "r") == expected
