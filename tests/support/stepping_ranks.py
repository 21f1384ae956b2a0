"""Ranks that train in step, as with a collective operation in each step, until they are preempted.

Run as ``python -m tests.support.stepping_ranks ROOT RANKS PREEMPTED STEP FACE``: the rank PREEMPTED
preempts itself after STEP. Prints the step at which each rank has ended, and its exit status.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from keisei import AppConfig, AsyncSessionManager, SessionManager, load_config

PATIENCE = 60.0  # seconds that a rank waits in a step for the others


def config_of(root: Path, rank: int, ranks: int) -> AppConfig:
    """Return the config of a rank."""
    return load_config(
        overrides={
            "logging": {"log_dir": str(root / "runs"), "log_level": "error"},
            "signals": {"handle": True, "grace": 40.0},
            "distributed": {"rank": rank, "world_size": ranks, "identity": str(root)},
        }
    )


async def train(config: AppConfig, barrier: Any, preempt_at: int | None, note: Path) -> None:
    """Train on a loop."""
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(1000, state={"a": 1})
        for step in range(1, 10**6):
            await anyio.to_thread.run_sync(barrier.wait, PATIENCE)
            if step == preempt_at:
                signal.raise_signal(signal.SIGUSR2)
            note.write_text(str(step))
            await session.checkpoint_if_due(step)


def train_blocking(config: AppConfig, barrier: Any, preempt_at: int | None, note: Path) -> None:
    """Train without a loop."""
    with SessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(1000, state={"a": 1})
        for step in range(1, 10**6):
            barrier.wait(PATIENCE)
            if step == preempt_at:
                signal.raise_signal(signal.SIGUSR2)
            note.write_text(str(step))
            session.checkpoint_if_due(step)


def live(
    root: Path, rank: int, ranks: int, preempt_at: int | None, face: str, barrier: Any
) -> None:
    """Be a rank."""
    config, note = config_of(root, rank, ranks), root / f"step-{rank}"
    if face == "blocking":
        train_blocking(config, barrier, preempt_at, note)
    else:
        anyio.run(train, config, barrier, preempt_at, note, backend=face)


def main() -> None:
    """Start the ranks, and print how they have ended."""
    root, ranks, preempted, step = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(ranks)
    processes = []
    for rank in range(ranks):
        at = step if rank == preempted else None
        given = (root, rank, ranks, at, sys.argv[5], barrier)
        processes.append(context.Process(target=live, args=given))
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    found = {
        "steps": [int((root / f"step-{rank}").read_text()) for rank in range(ranks)],
        "exits": [process.exitcode for process in processes],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
