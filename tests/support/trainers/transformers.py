"""A small training with transformers, as a plan says."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from keisei import AppConfig, SessionManager
from keisei.integrations.transformers import KeiseiCallback
from keisei.testing import Plan


class Model(torch.nn.Module):
    """Learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x: Any) -> Any:
        return {"loss": self.layer(x).sum()}


class Planned(Trainer):
    """Logs what the plan says."""

    plan: Plan

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.plan.on_step(self.state.global_step)
        return super().training_step(*args, **kwargs)


class Logs(TrainerCallback):
    """Logs what the plan says, and stops where it says so."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.trainer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step - 1
        self.trainer.log({"probe": self.plan.value(step)})
        if step == 2 and self.plan.extra:
            self.trainer.log(dict(self.plan.extra))
        if self.plan.stops_at(step):
            control.should_training_stop = True


def train(session: SessionManager[AppConfig], plan: Plan) -> None:
    """Train as the plan says."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    callback, logs = KeiseiCallback(session), Logs(plan)
    trainer = Planned(
        model=Model(),
        args=TrainingArguments(
            output_dir=str(plan.directory),
            max_steps=plan.steps,
            save_steps=plan.save_every,
            per_device_train_batch_size=1,
            use_cpu=True,
            ddp_backend="gloo" if plan.ranks > 1 else None,
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=[{"x": torch.ones(4)} for _ in range(64)],
        callbacks=[logs, callback],
    )
    trainer.plan, logs.trainer = plan, trainer
    trainer.train(resume_from_checkpoint=callback.restore() if plan.resumes else None)
