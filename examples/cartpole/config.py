"""The example's config: keisei's sections and one of its own."""

from pydantic import Field

from keisei import AppConfig, Section


class CartPoleSection(Section):
    """How CartPole is played and learned."""

    rollout_tasks: int = Field(default=4, ge=1)
    """Rollout tasks that play at the same time."""

    envs_per_task: int = Field(default=4, ge=1)
    """Environments that each rollout task steps together."""

    hidden: int = Field(default=64, ge=1)
    """Units in the hidden layer of the policy, and of the value baseline."""

    learning_rate: float = Field(default=3e-3, gt=0)
    """Adam's step size at the start; it falls linearly to zero."""

    gamma: float = Field(default=0.99, ge=0, le=1)
    """Discount per step."""

    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """Decay of generalised advantage estimation."""

    clip: float = Field(default=0.2, gt=0)
    """How far PPO lets a probability ratio move from 1."""

    entropy_bonus: float = Field(default=0.01, ge=0)
    """Weight of the policy's entropy in the objective."""

    passes: int = Field(default=6, ge=1)
    """Passes over each epoch's rows."""

    minibatch: int = Field(default=256, ge=1)
    """Rows in one gradient step."""

    solved_at: float = Field(default=475.0, gt=0)
    """Mean return of the last 100 episodes at which CartPole is solved and the training stops."""

    evaluate_every: int = Field(default=5, ge=1)
    """Epochs between two evaluations."""

    evaluation_episodes: int = Field(default=10, ge=1)
    """Episodes in an evaluation."""


class CartPoleConfig(AppConfig):
    """Everything that `python -m examples.cartpole` can be told."""

    cartpole: CartPoleSection = CartPoleSection()
    """How CartPole is played and learned."""
