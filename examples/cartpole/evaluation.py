"""Evaluation: whole episodes of the policy as it is, each action the likeliest one."""

from __future__ import annotations

import gymnasium
import numpy as np
from anyio.lowlevel import checkpoint

from .policy import Policy


async def evaluate(policy: Policy, episodes: int, seed: int) -> dict[str, float]:
    """Play one episode in each of several environments.

    policy: plays.
    episodes: how many.
    seed: of the environments.

    Returns what the episodes came to.
    """
    envs = gymnasium.make_vec("CartPole-v1", num_envs=episodes, vectorization_mode="sync")
    observations, _ = envs.reset(seed=seed)
    returns, playing = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while playing.any():
        actions = policy.actor.forward(observations)[1].argmax(axis=1)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += rewards * playing
        playing &= ~(terminated | truncated)
        await checkpoint()
    envs.close()
    return {"mean_return": float(returns.mean()), "lowest_return": float(returns.min())}
