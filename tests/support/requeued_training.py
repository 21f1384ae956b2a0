"""A training that is preempted and requeued many times, as a job of a stand-in for SLURM.

Run as ``python -m tests.support.requeued_training ROOT FACE [NAME]``: one start of the job; without
a name, the run's is a generated one. The variable `STEPS` says where it ends. It logs a row for
each step, notes in `acknowledged` how far `flush` has returned, and resumes from its newest
checkpoint. The row of a step is what a training that was never interrupted would have.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from keisei import AppConfig, AsyncSessionManager, SessionManager, load_config

MODULUS = 1_000_003


def advance(state: dict[str, Any]) -> None:
    """Do one step of the training: its numbers hang on all the steps before."""
    state["step"] += 1
    state["weight"] = (state["weight"] * 31 + state["step"]) % MODULUS


def config_of(root: Path) -> AppConfig:
    """Return the job's config."""
    return load_config(
        overrides={
            "logging": {"log_dir": str(root / "runs"), "log_level": "error"},
            "signals": {"handle": True},
            "distributed": {"requeue": True, "preempt_file": str(root / "preempt")},
        }
    )


class Acknowledged:
    """The file that says for which step `flush` has returned last."""

    def __init__(self, root: Path) -> None:
        self._path = root / "acknowledged"

    def note(self, step: int) -> None:
        """Note that the row of a step is acknowledged."""
        self._path.write_text(str(step))


def say_ready(root: Path) -> None:
    """Say that the job trains now."""
    (root / "ready").touch()


async def train(root: Path, steps: int, name: str | None) -> None:
    """Train on a loop to the last step, or to the next preemption."""
    acknowledged = Acknowledged(root)
    async with AsyncSessionManager(config_of(root), run_name=name) as session:
        state: dict[str, Any] = {"step": 0, "weight": 1}
        session.setup_auto_checkpointing(50, state=lambda: dict(state), keep_last=2)
        if (restored := await session.restore_checkpoint()) is not None:
            state = dict(restored.state or {})
        say_ready(root)
        while state["step"] < steps:
            advance(state)
            session.log_metrics({"weight": state["weight"]}, step=state["step"])
            if state["step"] % 7 == 0:
                await session.flush()
                acknowledged.note(state["step"])
            await anyio.sleep(0.001)
            await session.checkpoint_if_due(state["step"])


def train_blocking(root: Path, steps: int, name: str | None) -> None:
    """Train without a loop to the last step, or to the next preemption."""
    acknowledged = Acknowledged(root)
    with SessionManager(config_of(root), run_name=name) as session:
        state: dict[str, Any] = {"step": 0, "weight": 1}
        session.setup_auto_checkpointing(50, state=lambda: dict(state), keep_last=2)
        if (restored := session.restore_checkpoint()) is not None:
            state = dict(restored.state or {})
        say_ready(root)
        while state["step"] < steps:
            advance(state)
            session.log_metrics({"weight": state["weight"]}, step=state["step"])
            if state["step"] % 7 == 0:
                session.flush()
                acknowledged.note(state["step"])
            time.sleep(0.001)
            session.checkpoint_if_due(state["step"])


def main() -> None:
    """Train as one start of the job does."""
    root, face, *names = Path(sys.argv[1]), *sys.argv[2:]
    steps = int(os.environ["STEPS"])
    name = names[0] if names else None
    if face == "blocking":
        train_blocking(root, steps, name)
    else:
        anyio.run(train, root, steps, name, backend=face)


if __name__ == "__main__":
    main()
