"""A small training with stable-baselines3, as a plan says."""

from __future__ import annotations

import gymnasium
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from keisei import AppConfig, SessionManager
from keisei.integrations.sb3 import KeiseiCallback
from keisei.testing import Plan


class Logs(BaseCallback):
    """Logs what the plan says at each timestep, and stops where it says so."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def _on_step(self) -> bool:
        step = self.num_timesteps - 1
        self.plan.on_step(step)
        self.logger.record("probe", self.plan.value(step))
        if step == 2:
            for name, value in self.plan.extra.items():
                self.logger.record(name, value)
        self.logger.dump(self.num_timesteps)
        return step + 1 < self.plan.steps and not self.plan.stops_at(step)  # amid a rollout


def train(session: SessionManager[AppConfig], plan: Plan) -> None:
    """Train as the plan says."""
    callback = KeiseiCallback(session, save_every=plan.save_every)
    path = callback.restore() if plan.resumes else None
    if path is None:
        model = PPO("MlpPolicy", "CartPole-v1", n_steps=4, batch_size=4, n_epochs=1, device="cpu")
    else:
        model = PPO.load(path, gymnasium.make("CartPole-v1"), device="cpu")
    left = plan.steps - model.num_timesteps
    callbacks = [Logs(plan), callback]
    model.learn(left, callbacks, log_interval=10**6, reset_num_timesteps=path is None)
