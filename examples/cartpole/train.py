"""The training itself: rollouts, learner and reports on one event loop."""

from __future__ import annotations

import math
import os
from pathlib import Path

import anyio
import anyio.to_thread
import numpy as np

from keisei import AsyncSessionManager

from .config import CartPoleConfig
from .display import Display
from .learner import Epoch, learn
from .metrics import report
from .policy import Policy
from .rollout import Experience, rollout


async def train(
    session: AsyncSessionManager[CartPoleConfig], display: Display, returns: list[float]
) -> None:
    """Train a policy as the session's config says, and save it as `final_model.npz`.

    session: must have been entered.
    display: shows progress.
    returns: gets every episode's return, in order and on the way.
    """
    config = session.config
    seeds = np.random.SeedSequence(config.env.seed).spawn(2 + config.cartpole.rollout_tasks)
    weights_rng, learner_rng, *rollout_rngs = map(np.random.default_rng, seeds)
    policy = Policy(observation_size=4, hidden=config.cartpole.hidden, actions=2, rng=weights_rng)

    # Experience is bounded, so that rollouts never play far ahead of the policy. Epochs are few
    # and not bounded, so that the learner never waits for a report.
    send_experience, experience = anyio.create_memory_object_stream[Experience](len(rollout_rngs))
    send_epochs, epochs = anyio.create_memory_object_stream[Epoch](math.inf)
    async with epochs, anyio.create_task_group() as reports, send_epochs:
        reports.start_soon(report, session, display, epochs)
        async with send_experience, experience, anyio.create_task_group() as players:
            for rng in rollout_rngs:
                players.start_soon(rollout, policy, config.cartpole, rng, send_experience)
            await learn(policy, config, learner_rng, experience, returns, send_epochs.send_nowait)
            players.cancel_scope.cancel()
    await anyio.to_thread.run_sync(save, policy, Path(session.model_dir) / "final_model.npz")


def save(policy: Policy, path: Path) -> None:
    """Write the policy to `path`, whole or not at all."""
    partial = path.with_suffix(".partial")
    policy.save(partial)
    os.replace(partial, path)
