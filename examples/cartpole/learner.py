"""The learner: improve the policy from the rollouts' experience by clipped policy gradients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream

from .config import CartPoleConfig, CartPoleSection
from .policy import Actions, Array, Policy, log_softmax
from .rollout import Experience


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
    """Environment steps per second since the start."""

    def __str__(self) -> str:
        """Return the figures in one line."""
        return (
            f"epoch {self.number}: {self.steps} steps, {self.episodes} episodes, "
            f"mean return {self.mean_return:.1f}, entropy {self.entropy:.2f}, "
            f"value error {self.value_error:.2f}, {self.steps_per_second:.0f} steps/s"
        )


async def learn(
    policy: Policy,
    config: CartPoleConfig,
    rng: np.random.Generator,
    experience: MemoryObjectReceiveStream[Experience],
    returns: list[float],
    log: Callable[[Mapping[str, object], int], object],
    publish: Callable[[Epoch], Awaitable[None]],
) -> None:
    """Improve the policy, epoch by epoch, until it is solved or no step is left.

    policy: improved in place.
    config: how long, and how.
    rng: shuffles the rows.
    experience: comes from the rollout tasks.
    returns: gets every episode's return, in order.
    log: called with each episode's return, and the steps until then.
    publish: awaited with each epoch's figures.
    """
    total, settings = config.training.total_timesteps, config.cartpole
    steps = number = 0
    started = perf_counter()
    while steps < total and not solved(returns, settings):
        parts, rows = [], 0
        wanted = min(config.training.steps_per_epoch, total - steps)
        while rows < wanted:
            part = await experience.receive()
            parts.append(part)
            rows += len(part.actions)
            for episode_return in part.episode_returns:
                log({"episode/return": episode_return}, steps + rows)
        batch = Experience.join(parts, limit=total - steps)
        learning_rate = settings.learning_rate * (1.0 - steps / total)
        entropy, value_error = await improve(policy, batch, settings, learning_rate, rng)
        number += 1
        steps += len(batch.actions)
        returns.extend(batch.episode_returns)
        await publish(
            Epoch(
                number=number,
                steps=steps,
                episodes=len(returns),
                mean_return=float(np.mean(returns[-100:])) if returns else 0.0,
                entropy=entropy,
                value_error=value_error,
                steps_per_second=steps / (perf_counter() - started),
            )
        )


def solved(returns: Sequence[float], settings: CartPoleSection) -> bool:
    """Return whether the last 100 episodes were good enough."""
    return len(returns) >= 100 and float(np.mean(returns[-100:])) >= settings.solved_at


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
