"""The learner: improve the policy from the rollouts' experience by clipped policy gradients."""

from __future__ import annotations

import numpy as np
from anyio.lowlevel import checkpoint

from .config import CartPoleSection
from .policy import Actions, Array, Policy, log_softmax
from .rollout import Experience


async def improve(
    policy: Policy,
    batch: Experience,
    settings: CartPoleSection,
    learning_rate: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Pass over the batch several times in small steps; return mean entropy and value error."""
    rows = len(batch.actions)
    advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
    entropies, squared_errors = [], []
    for _ in range(settings.passes):
        order = rng.permutation(rows)
        for start in range(0, rows, settings.minibatch):
            pick = order[start : start + settings.minibatch]
            observations = batch.observations[pick]

            hidden, logits = policy.actor.forward(observations)
            slope, entropy = policy_slope(
                logits, batch.actions[pick], batch.log_probs[pick], advantages[pick], settings
            )
            policy.actor.descend(observations, hidden, slope, learning_rate)

            hidden, values = policy.critic.forward(observations)
            errors = values - batch.returns[pick, None]
            policy.critic.descend(observations, hidden, errors / len(pick), learning_rate)

            entropies.append(entropy)
            squared_errors.append(float(np.mean(errors**2)))
            await checkpoint()
    return float(np.mean(entropies)), float(np.sqrt(np.mean(squared_errors)))


def policy_slope(
    logits: Array,
    actions: Actions,
    old_log_probs: Array,
    advantages: Array,
    settings: CartPoleSection,
) -> tuple[Array, float]:
    """Differentiate PPO's clipped loss, less the entropy bonus, by the logits.

    logits: (rows, actions), of the policy as it is now.
    actions: (rows,), those taken.
    old_log_probs: (rows,), of those actions when they were taken.
    advantages: (rows,)
    settings: gives `clip` and `entropy_bonus`.

    Returns the derivative (rows, actions) and the mean entropy.
    """
    rows = np.arange(len(actions))
    log_probs = log_softmax(logits)
    probs = np.exp(log_probs)
    ratio = np.exp(log_probs[rows, actions] - old_log_probs)
    # Where the ratio has moved far enough the way the advantage points, clipping stops the slope.
    moved = np.where(advantages > 0, ratio - 1.0, 1.0 - ratio)
    push = np.where(moved < settings.clip, advantages * ratio, 0.0)
    slope = push[:, None] * probs
    slope[rows, actions] -= push
    entropy = -(probs * log_probs).sum(axis=1, keepdims=True)
    slope += settings.entropy_bonus * probs * (log_probs + entropy)
    return slope / len(rows), float(entropy.mean())
