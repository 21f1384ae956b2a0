"""The training in a session: rollouts, learner and evaluations on one event loop."""

from __future__ import annotations

import copy

import anyio

from keisei import AsyncSessionManager

from .config import CartPoleConfig
from .evaluation import evaluate
from .heartbeat import Heartbeat
from .metrics import report
from .policy import Policy
from .training import Training


async def train(
    session: AsyncSessionManager[CartPoleConfig], heartbeat: Heartbeat, training: Training
) -> None:
    """Train until CartPole is solved, from where the last checkpoint was taken.

    session: must have been entered.
    heartbeat: measures how long the loop has been held.
    training: has just begun.
    """
    settings = session.config.cartpole

    async def evaluation(policy: Policy, epochs: int, steps: int) -> None:
        record = await evaluate(policy, settings.evaluation_episodes, seed=epochs)
        session.log_evaluation(record, step=steps)

    restored = await session.restore_checkpoint()
    if restored is not None and restored.state is not None:
        training.restore(restored.state)
    session.setup_auto_checkpointing(state=training.state)
    while not training.over:
        async with anyio.create_task_group() as tasks:
            if training.epochs % settings.evaluate_every == 0:
                # A copy, for the epoch improves the policy meanwhile.
                policy = copy.deepcopy(training.policy)
                tasks.start_soon(evaluation, policy, training.epochs, training.steps)
            epoch = await training.epoch(session.log_metrics)
        report(session, heartbeat, epoch)
        await session.checkpoint_if_due(training.steps)  # Between two epochs nothing is in flight.
    await evaluation(training.policy, training.epochs, training.steps)
    await session.save_final_model(training.policy.state())
