"""A small training with Ray Train, as a plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from keisei import AppConfig
from keisei.integrations.ray import worker_session
from keisei.testing import Plan
from tests.support.trainers.ray_cluster import started


def loop(settings: dict[str, Any]) -> None:
    """Train on one worker."""
    config, plan = settings["config"], settings["plan"]
    with worker_session(config, {"learning_rate": 0.1}) as worker:
        plan = replace(plan, session=worker.session)
        begins = 0
        if plan.resumes and (directory := worker.restore()) is not None:
            begins = int(Path(directory, "model.txt").read_text())
        for step in range(begins, plan.steps):

            def save(directory: Path, done: int = step + 1) -> None:
                (directory / "model.txt").write_text(str(done))

            plan.on_step(step)
            row = {"loss": plan.value(step), **(plan.extra if step == 2 else {})}
            worker.report(row, step + 1, save if (step + 1) % plan.save_every == 0 else None)
            worker.save_if_preempted(step + 1, save)
            if plan.stops_at(step):
                break


def train(config: AppConfig, plan: Plan) -> None:
    """Train as the plan says."""
    started()
    DataParallelTrainer(
        loop,
        train_loop_config={"config": config, "plan": plan},
        scaling_config=ScalingConfig(num_workers=plan.ranks),
        run_config=RunConfig(name="checked", storage_path=str(plan.directory)),
    ).fit()
