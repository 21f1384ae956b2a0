"""A rollout: environments that one task plays, and the experience that this brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from anyio.lowlevel import checkpoint
from gymnasium.vector import AutoresetMode

from .config import CartPoleSection
from .policy import Actions, Array, Policy

Step = tuple[npt.NDArray[Any], ...]
"""Observations, actions, log-probabilities, values, rewards and ends; (envs, ...) each."""


@dataclass(frozen=True)
class Experience:
    """What was seen and done: one row for each step of each environment."""

    observations: Array
    """(rows, 4)"""
    actions: Actions
    """(rows,)"""
    log_probs: Array
    """(rows,), of the actions under the policy that chose them."""
    advantages: Array
    """(rows,), how much better each action turned out than the baseline expected."""
    returns: Array
    """(rows,), what the baseline should have expected."""
    episodes: tuple[tuple[int, float], ...]
    """For each episode that ended here: the step of the environments at which it did, from 1, and
    its return."""

    @classmethod
    def join(cls, parts: Sequence[Experience], limit: int) -> Experience:
        """Put several together in order, and keep the first `limit` rows."""

        def joined(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])[:limit]

        return cls(
            joined("observations"),
            joined("actions"),
            joined("log_probs"),
            joined("advantages"),
            joined("returns"),
            tuple(sorted((e for part in parts for e in part.episodes), key=lambda e: e[0])),
        )


class Rollout:
    """The environments that one task plays, and the generator that draws its actions."""

    def __init__(self, settings: CartPoleSection, rng: np.random.Generator) -> None:
        """Start the first episodes.

        settings: the number of environments, and the discounts.
        rng: seeds the environments and draws the actions.
        """
        self.settings, self.rng = settings, rng
        self.envs: Any = gymnasium.make_vec(
            "CartPole-v1",
            num_envs=settings.envs_per_task,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        )
        self.observations, _ = self.envs.reset(seed=int(rng.integers(2**31)))
        self.totals = np.zeros(settings.envs_per_task)

    async def play(self, policy: Policy, count: int) -> Experience:
        """Take `count` steps in each environment, from where the last call left them."""
        steps: list[Step] = []
        episodes: list[tuple[int, float]] = []
        for number in range(1, count + 1):
            actions, log_probs, values = policy.act(self.observations, self.rng)
            after, rewards, terminated, truncated, info = self.envs.step(actions)
            ended = terminated | truncated
            self.totals += rewards
            episodes.extend((number, total) for total in self.totals[ended].tolist())
            self.totals[ended] = 0.0
            if truncated.any():  # The time limit is no failure: add what would have followed.
                last_seen = np.stack(info["final_obs"][truncated])
                rewards[truncated] += self.settings.gamma * policy.value(last_seen)
            steps.append((self.observations, actions, log_probs, values, rewards, ended))
            self.observations = after
            await checkpoint()
        return as_experience(steps, policy.value(self.observations), self.settings, episodes)

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs to go on from here, in the middle of the episodes."""
        return {
            "rng": self.rng.bit_generator.state,
            "observations": self.observations,
            "totals": self.totals,
            "envs": [state_of(env) for env in self.envs.envs],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.rng.bit_generator.state = state["rng"]
        self.observations, self.totals = state["observations"], state["totals"]
        for env, one in zip(self.envs.envs, state["envs"], strict=True):
            restore_into(env, one)


def state_of(env: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    """Return what CartPole is made of: the cart and its pole, its time so far, its generator."""
    game: Any = env.unwrapped
    return {
        "physics": game.state,
        "beyond": game.steps_beyond_terminated,
        "elapsed": env.get_wrapper_attr("_elapsed_steps"),
        "rng": game.np_random.bit_generator.state,
    }


def restore_into(env: gymnasium.Env[Any, Any], state: dict[str, Any]) -> None:
    """Put back what `state_of` returned."""
    game: Any = env.unwrapped
    game.state, game.steps_beyond_terminated = state["physics"], state["beyond"]
    env.set_wrapper_attr("_elapsed_steps", state["elapsed"])
    game.np_random.bit_generator.state = state["rng"]


def as_experience(
    steps: Sequence[Step],
    last_values: Array,
    settings: CartPoleSection,
    episodes: Sequence[tuple[int, float]],
) -> Experience:
    """Put steps into rows.

    steps: as `Rollout.play` took them, oldest first.
    last_values: (envs,), the baseline's estimates after the last step.
    settings: gives the discounts.
    episodes: those that ended meanwhile.
    """
    observations, actions, log_probs, values, rewards, ended = map(
        np.stack, zip(*steps, strict=True)
    )
    next_values = np.vstack([values[1:], last_values])
    advantages = estimate_advantages(values, next_values, rewards, ended, settings)
    return Experience(
        observations.reshape(-1, observations.shape[-1]),
        actions.ravel(),
        log_probs.ravel(),
        advantages.ravel(),
        (advantages + values).ravel(),
        tuple(episodes),
    )


def estimate_advantages(
    values: Array, next_values: Array, rewards: Array, ended: Array, settings: CartPoleSection
) -> Array:
    """Estimate by GAE how much better than expected each step went.

    values, next_values: (steps, envs), the baseline's estimates before and after each step.
    rewards: (steps, envs)
    ended: (steps, envs), true where the step was its episode's last.
    settings: gives `gamma` and `gae_lambda`.
    """
    discounts = settings.gamma * (1.0 - ended)
    surprises = rewards + discounts * next_values - values
    advantages = np.zeros_like(values)
    following = np.zeros(values.shape[1])
    for step in reversed(range(len(values))):
        following = surprises[step] + discounts[step] * settings.gae_lambda * following
        advantages[step] = following
    return advantages
