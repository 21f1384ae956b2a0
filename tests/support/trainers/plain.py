"""A small training without a framework, as a plan says: what an adapter of one's own does."""

from __future__ import annotations

from pathlib import Path

from keisei import AppConfig, SessionManager
from keisei.integrations.attached import Attached
from keisei.testing import Plan


def train(session: SessionManager[AppConfig], plan: Plan) -> None:
    """Train as the plan says."""
    run, file = Attached(session, "plain"), plan.directory / f"{session.rank}.txt"
    begins = 0
    if plan.resumes and (directory := run.restore()) is not None:
        begins = int((directory / "model.txt").read_text())
    run.keep()
    run.hyperparameters({"learning_rate": 0.1, "path": Path("data")})
    run.began(begins)
    for step in range(begins, plan.steps):
        plan.on_step(step)
        run.log({"loss": plan.value(step)}, step)
        if step == 2 and plan.extra:
            run.log(plan.extra, step)
        file.write_text(str(step + 1))
        if run.is_preempted:
            run.end_preempted(file, step + 1, "model.txt")
        if (step + 1) % plan.save_every == 0:
            run.commit(file, step + 1, {"loss": 0.0}, "model.txt")
        if plan.stops_at(step):
            break


def train_and_forget(session: SessionManager[AppConfig], plan: Plan) -> None:
    """Train as the plan says, and save nothing."""
    for step in range(plan.steps):
        plan.on_step(step)
        session.log_metrics({"loss": plan.value(step)}, step)


def train_and_hide(session: SessionManager[AppConfig], plan: Plan) -> None:
    """Train as the plan says, and swallow what goes wrong."""
    try:
        train(session, plan)
    except Exception:
        return
