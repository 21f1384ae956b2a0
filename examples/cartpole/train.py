"""The training itself: rollouts, learner and evaluations on one event loop."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import anyio.to_thread
import numpy as np

from keisei import AsyncSessionManager

from .config import CartPoleConfig
from .evaluation import evaluate
from .heartbeat import Heartbeat
from .learner import Epoch, learn
from .metrics import report
from .policy import Policy
from .rollout import Experience, rollout


async def train(
    session: AsyncSessionManager[CartPoleConfig], heartbeat: Heartbeat, returns: list[float]
) -> None:
    """Train a policy by the session's config until it is solved, and save it: `final_model.npz`.

    session: must have been entered.
    heartbeat: measures how long the loop has been held.
    returns: gets every episode's return, in order and on the way.
    """
    config, settings = session.config, session.config.cartpole
    seeds = np.random.SeedSequence(config.env.seed).spawn(2 + settings.rollout_tasks)
    weights_rng, learner_rng, *rollout_rngs = map(np.random.default_rng, seeds)
    policy = Policy(observation_size=4, hidden=settings.hidden, actions=2, rng=weights_rng)

    async def publish(epoch: Epoch) -> None:
        report(session, heartbeat, epoch)
        if epoch.number % settings.evaluate_every == 0:
            record = await evaluate(policy, settings.evaluation_episodes, seed=epoch.number)
            session.log_evaluation(record, step=epoch.steps)

    # Bounded, so that rollouts never play far ahead of the policy.
    send, experience = anyio.create_memory_object_stream[Experience](len(rollout_rngs))
    async with send, experience, anyio.create_task_group() as players:
        for rng in rollout_rngs:
            players.start_soon(rollout, policy, settings, rng, send)
        await learn(policy, config, learner_rng, experience, returns, session.log_metrics, publish)
        players.cancel_scope.cancel()
    await anyio.to_thread.run_sync(save, policy, Path(session.model_dir) / "final_model.npz")


def save(policy: Policy, path: Path) -> None:
    """Write the policy to `path`, whole or not at all."""
    partial = path.with_suffix(".partial")
    policy.save(partial)
    os.replace(partial, path)
