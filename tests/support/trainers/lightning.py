"""A small training with Lightning, as a plan says."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from keisei import AppConfig, SessionManager
from keisei.integrations.lightning import KeiseiCallback, KeiseiLogger
from keisei.testing import Plan


class Model(pl.LightningModule):
    """Logs what the plan says, and learns nothing."""

    def __init__(self, plan: Plan, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters("width")
        self.plan, self.layer = plan, torch.nn.Linear(width, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        step = self.global_step
        self.plan.on_step(step)
        self.log("loss", self.plan.value(step))
        if step == 2 and self.plan.extra:
            for logger in self.loggers:
                logger.log_metrics(dict(self.plan.extra), step=step)
        if self.plan.stops_at(step):
            self.trainer.should_stop = True
        return self.layer(batch[0]).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def train(session: SessionManager[AppConfig], plan: Plan) -> None:
    """Train as the plan says."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    callback = KeiseiCallback(session)
    saving = ModelCheckpoint(every_n_train_steps=plan.save_every, save_top_k=-1)
    trainer = pl.Trainer(
        max_steps=plan.steps,
        logger=KeiseiLogger(session),
        callbacks=[callback, saving],
        accelerator="cpu",
        devices=plan.ranks,
        strategy="ddp" if plan.ranks > 1 else "auto",
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(TensorDataset(torch.ones(8 * plan.ranks, 4)), batch_size=1)
    checkpoint = callback.restore() if plan.resumes else None
    trainer.fit(Model(plan), data, ckpt_path=checkpoint)
