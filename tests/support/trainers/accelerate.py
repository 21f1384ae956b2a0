"""A small training with accelerate, as a plan says."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from keisei import AppConfig, SessionManager
from keisei.integrations.accelerate import KeiseiTracker
from keisei.testing import Plan


def train(session: SessionManager[AppConfig], plan: Plan) -> None:
    """Train as the plan says."""
    tracker = KeiseiTracker(session)
    accelerator = Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("project", config={"learning_rate": 0.01})
    model = torch.nn.Linear(4, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    if plan.resumes and (directory := tracker.restore()) is not None:
        accelerator.load_state(directory)
    for step in range(tracker.restored_step, plan.steps):
        plan.on_step(step)
        accelerator.backward(model(torch.ones(1, 4)).sum())
        optimizer.step()
        optimizer.zero_grad()
        accelerator.log({"loss": plan.value(step)}, step=step)
        if step == 2 and plan.extra:
            accelerator.log(dict(plan.extra), step=step)
        tracker.save_state_if_preempted(accelerator, step + 1)
        if (step + 1) % plan.save_every == 0:
            tracker.save_state(accelerator, step + 1)
        if plan.stops_at(step):
            break
    accelerator.end_training()
