"""A small experiment of Ray Tune's with one trial, as a plan says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ray import tune

from keisei import AppConfig
from keisei.integrations.ray import KeiseiCallback
from keisei.testing import Plan
from tests.support.trainers.ray_cluster import started


def trial(settings: dict[str, Any], plan: Plan) -> None:
    """Report what the plan says."""
    begins = 0
    if (checkpoint := tune.get_checkpoint()) is not None:
        with checkpoint.as_directory() as directory:
            begins = int(Path(directory, "model.txt").read_text())
    for step in range(begins, plan.steps):
        plan.on_step(step)
        row = {"loss": plan.value(step), **(plan.extra if step == 2 else {})}
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "model.txt").write_text(str(step + 1))
            saves = (step + 1) % plan.save_every == 0
            tune.report(row, checkpoint=tune.Checkpoint(directory) if saves else None)


def train(config: AppConfig, plan: Plan) -> None:
    """Train as the plan says."""
    started()
    trainable, home = tune.with_parameters(trial, plan=plan), plan.directory / "checked"
    if plan.resumes:
        tune.Tuner.restore(str(home), trainable, resume_errored=True).fit()
        return
    run = tune.RunConfig(
        name="checked",
        storage_path=str(plan.directory),
        stop=lambda trial, result: plan.stops_at(result["training_iteration"] - 1),
        callbacks=[KeiseiCallback(config)],
        verbose=0,
    )
    tune.Tuner(trainable, param_space={"rate": 0.1}, run_config=run).fit()
