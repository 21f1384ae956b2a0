"""Rollout tasks: play CartPole with the newest policy, and send what happened to the learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectSendStream
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
    episode_returns: tuple[float, ...]
    """Returns of the episodes that ended here, in order."""

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
            tuple(total for part in parts for total in part.episode_returns),
        )


async def rollout(
    policy: Policy,
    settings: CartPoleSection,
    rng: np.random.Generator,
    send: MemoryObjectSendStream[Experience],
) -> None:
    """Play until cancelled, and send the experience of every `settings.segment_steps` steps.

    policy: plays; the learner improves it meanwhile.
    settings: the number of environments and steps, and the discounts.
    rng: seeds the environments and draws the actions.
    send: leads to the learner; while it is full, play waits.
    """
    envs = gymnasium.make_vec(
        "CartPole-v1",
        num_envs=settings.envs_per_task,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )
    observations, _ = envs.reset(seed=int(rng.integers(2**31)))
    totals = np.zeros(settings.envs_per_task)
    while True:
        steps: list[Step] = []
        episode_returns: list[float] = []
        for _ in range(settings.segment_steps):
            actions, log_probs, values = policy.act(observations, rng)
            after, rewards, terminated, truncated, info = envs.step(actions)
            ended = terminated | truncated
            totals += rewards
            episode_returns.extend(totals[ended].tolist())
            totals[ended] = 0.0
            if truncated.any():  # The time limit is no failure: add what would have followed.
                last_seen = np.stack(info["final_obs"][truncated])
                rewards[truncated] += settings.gamma * policy.value(last_seen)
            steps.append((observations, actions, log_probs, values, rewards, ended))
            observations = after
            await checkpoint()
        await send.send(as_experience(steps, policy.value(observations), settings, episode_returns))


def as_experience(
    steps: Sequence[Step],
    last_values: Array,
    settings: CartPoleSection,
    episode_returns: Sequence[float],
) -> Experience:
    """Put the steps of a segment into rows.

    steps: as `rollout` took them, oldest first.
    last_values: (envs,), the baseline's estimates after the last step.
    settings: gives the discounts.
    episode_returns: of the episodes that ended meanwhile.
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
        tuple(episode_returns),
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
