"""The training's state, and the epoch that takes it from one safe point to the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import anyio
import numpy as np

from .config import CartPoleConfig
from .learner import improve
from .policy import Policy
from .rollout import Experience, Rollout

T = TypeVar("T")


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to."""

    number: int
    """Counts from 1."""
    steps: int
    """Environment steps learned from since the start."""
    episodes: int
    """Episodes that ended since the start."""
    mean_return: float
    """Mean return of the last 100 episodes."""
    entropy: float
    """Mean entropy of the policy, in nats (0.69 is a coin flip)."""
    value_error: float
    """Root mean square error of the baseline."""
    steps_per_second: float
    """Environment steps per second of this epoch."""

    def __str__(self) -> str:
        """Return the figures in one line."""
        return (
            f"epoch {self.number}: {self.steps} steps, {self.episodes} episodes, "
            f"mean return {self.mean_return:.1f}, entropy {self.entropy:.2f}, "
            f"value error {self.value_error:.2f}, {self.steps_per_second:.0f} steps/s"
        )


class Training:
    """All that changes while the policy is trained.

    Between two epochs nothing is in flight: there `state` holds everything, and a training that
    restores it goes on as if it had never stopped, bit for bit.
    """

    def __init__(self, config: CartPoleConfig) -> None:
        """Draw the weights and start the first episodes, by the config's seed."""
        self.config, self.settings = config, config.cartpole
        seeds = np.random.SeedSequence(config.env.seed).spawn(2 + self.settings.rollout_tasks)
        weights_rng, self.rng, *rollout_rngs = map(np.random.default_rng, seeds)
        self.policy = Policy(4, self.settings.hidden, actions=2, rng=weights_rng)
        self.rollouts = [Rollout(self.settings, rng) for rng in rollout_rngs]
        self.epochs = self.steps = 0
        self.returns: list[float] = []
        """Every episode's return, in order."""

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs."""
        return {
            "policy": self.policy.state(),
            "rng": self.rng.bit_generator.state,
            "rollouts": [rollout.state() for rollout in self.rollouts],
            "epochs": self.epochs,
            "steps": self.steps,
            "returns": np.array(self.returns),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.policy.restore(state["policy"])
        self.rng.bit_generator.state = state["rng"]
        for rollout, one in zip(self.rollouts, state["rollouts"], strict=True):
            rollout.restore(one)
        self.epochs, self.steps = state["epochs"], state["steps"]
        self.returns = state["returns"].tolist()

    @property
    def solved(self) -> bool:
        """Whether the last 100 episodes were good enough."""
        return len(self.returns) >= 100 and self.mean_return >= self.settings.solved_at

    @property
    def over(self) -> bool:
        """Whether CartPole is solved, or no step is left."""
        return self.solved or self.steps >= self.config.training.total_timesteps

    @property
    def mean_return(self) -> float:
        """Mean return of the last 100 episodes."""
        return float(np.mean(self.returns[-100:])) if self.returns else 0.0

    async def epoch(self, log: Callable[[Mapping[str, object], int], object]) -> Epoch:
        """Play with the policy in all rollouts at once, then improve it.

        log: called with each episode's return, and the steps until its end.
        """
        total, began = self.config.training.total_timesteps, perf_counter()
        wanted = min(self.config.training.steps_per_epoch, total - self.steps)
        together = self.settings.rollout_tasks * self.settings.envs_per_task
        count = -(-wanted // together)
        parts = await gather([partial(each.play, self.policy, count) for each in self.rollouts])
        batch = Experience.join(parts, limit=wanted)
        for number, episode_return in batch.episodes:
            log({"episode/return": episode_return}, min(self.steps + number * together, total))
        self.returns.extend(episode_return for _, episode_return in batch.episodes)
        learning_rate = self.settings.learning_rate * (1.0 - self.steps / total)
        entropy, value_error = await improve(
            self.policy, batch, self.settings, learning_rate, self.rng
        )
        self.epochs += 1
        self.steps += wanted
        return Epoch(
            number=self.epochs,
            steps=self.steps,
            episodes=len(self.returns),
            mean_return=self.mean_return,
            entropy=entropy,
            value_error=value_error,
            steps_per_second=wanted / (perf_counter() - began),
        )


async def gather(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Await all calls at once, and return their results in order."""
    results: dict[int, T] = {}

    async def keep(number: int, call: Callable[[], Awaitable[T]]) -> None:
        results[number] = await call()

    async with anyio.create_task_group() as tasks:
        for number, call in enumerate(calls):
            tasks.start_soon(keep, number, call)
    return [results[number] for number in range(len(calls))]
