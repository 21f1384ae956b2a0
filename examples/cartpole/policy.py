"""The policy and its value baseline: two small networks in numpy, and Adam."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Actions = npt.NDArray[np.int64]


class Network:
    """One hidden tanh layer, trained with Adam."""

    def __init__(self, inputs: int, hidden: int, outputs: int, rng: np.random.Generator) -> None:
        """Draw the weights at random; the last layer's are small, so that play starts even."""
        self.weights: list[Array] = [
            rng.normal(0.0, inputs**-0.5, (inputs, hidden)),
            np.zeros(hidden),
            rng.normal(0.0, 0.01 * hidden**-0.5, (hidden, outputs)),
            np.zeros(outputs),
        ]
        self._means = [np.zeros_like(weight) for weight in self.weights]
        self._squares = [np.zeros_like(weight) for weight in self.weights]
        self._updates = 0

    def forward(self, inputs: Array) -> tuple[Array, Array]:
        """Return the hidden activations (rows, hidden) and the outputs (rows, outputs)."""
        first, first_bias, last, last_bias = self.weights
        hidden = np.tanh(inputs @ first + first_bias)
        return hidden, hidden @ last + last_bias

    def descend(self, inputs: Array, hidden: Array, slope: Array, learning_rate: float) -> None:
        """Take one Adam step down the loss.

        inputs: (rows, inputs), as given to `forward`.
        hidden: (rows, hidden), as returned by it.
        slope: (rows, outputs), the loss's derivative by each output.
        learning_rate: Adam's step size.
        """
        inner = (slope @ self.weights[2].T) * (1.0 - hidden**2)
        gradients = [inputs.T @ inner, inner.sum(0), hidden.T @ slope, slope.sum(0)]
        self._updates += 1
        mean_scale, square_scale = 1.0 - 0.9**self._updates, 1.0 - 0.999**self._updates
        for weight, mean, square, gradient in zip(
            self.weights, self._means, self._squares, gradients, strict=True
        ):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            weight -= learning_rate * (mean / mean_scale) / (np.sqrt(square / square_scale) + 1e-8)

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs: the weights, Adam's two means, and its count."""
        return {
            "weights": self.weights,
            "means": self._means,
            "squares": self._squares,
            "updates": self._updates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.weights, self._means = state["weights"], state["means"]
        self._squares, self._updates = state["squares"], state["updates"]


class Policy:
    """A softmax policy over actions, and a baseline that estimates the return."""

    def __init__(
        self, observation_size: int, hidden: int, actions: int, rng: np.random.Generator
    ) -> None:
        """Make both networks, of `hidden` units each."""
        self.actor = Network(observation_size, hidden, actions, rng)
        self.critic = Network(observation_size, hidden, 1, rng)

    def act(self, observations: Array, rng: np.random.Generator) -> tuple[Actions, Array, Array]:
        """Draw an action for each of the observations (rows, observation_size).

        Returns the actions, their log-probabilities and the values, each (rows,).
        """
        log_probs = log_softmax(self.actor.forward(observations)[1])
        # The Gumbel trick: the largest of noisy logits is a draw from the softmax.
        actions = (log_probs + rng.gumbel(size=log_probs.shape)).argmax(axis=1)
        rows = np.arange(len(actions))
        return actions, log_probs[rows, actions], self.value(observations)

    def value(self, observations: Array) -> Array:
        """Estimate the return (rows,) that follows each observation (rows, observation_size)."""
        return self.critic.forward(observations)[1][:, 0]

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs."""
        return {"actor": self.actor.state(), "critic": self.critic.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.actor.restore(state["actor"])
        self.critic.restore(state["critic"])


def log_softmax(logits: Array) -> Array:
    """Turn logits (rows, actions) into log-probabilities of the same shape."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
