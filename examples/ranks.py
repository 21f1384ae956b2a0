"""Four processes as one run, with checkpoints of four shards: `python -m examples.ranks`.

Started alone it starts its ranks itself; under a launcher it is one of them:

    torchrun --nproc-per-node=4 -m examples.ranks --run-name NAME

With `--run-name NAME` any of them may be killed at any instant: the others end, too, and the same
command goes on from the last checkpoint.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
from typing import Any

from keisei import AsyncSessionManager, load_config
from keisei.journal.reader import read_run

RANKS = 4
STEPS = 200


async def train(run_name: str | None, rank: int | None = None) -> None:
    """Train as one rank: it owns a part of the parameters, and saves that.

    Args:
        run_name: the run's name.
        rank: which rank, where no launcher says it.
    """
    session = AsyncSessionManager(load_config(), run_name=run_name)
    if rank is not None:
        session.enable_distributed_session(rank, RANKS)
    async with session:
        part = [random.uniform(-5, 5) for _ in range(8)]
        state: dict[str, Any] = {"step": 0, "part": part}
        restored = await session.restore_checkpoint()
        if restored is not None and restored.state is not None:
            state = restored.state
            print(f"rank {session.rank} goes on from step {restored.step}")
        session.setup_auto_checkpointing(interval=20, state=state, keep_last=2)
        while state["step"] < STEPS:
            await asyncio.sleep(0.01)  # the gradient
            state["part"] = [x * 0.98 for x in state["part"]]
            state["step"] += 1
            loss = sum(x * x for x in state["part"])
            session.log_metrics({"loss": loss}, step=state["step"])
            await session.checkpoint_if_due(state["step"])
    if session.rank == 0:
        steps, losses = read_run(session.run_artifact_dir).columns("loss", reduce="mean")
        print(
            f"the mean loss over {session.world_size} ranks: {len(steps)} steps, {losses[-1]:.4f}"
        )
        print(f"{session.run_name}: {session.status}")


def start(run_name: str | None, rank: int | None) -> None:
    """Be one rank."""
    asyncio.run(train(run_name, rank))


def main() -> int:
    """Be one rank of a launcher's, or start all of them and wait for their ends."""
    options = argparse.ArgumentParser(description="Train as four processes.")
    options.add_argument("--run-name", help="the run to begin, or to go on with")
    run_name = options.parse_args().run_name
    if AsyncSessionManager(load_config(), run_name=run_name).world_size > 1:
        start(run_name, rank=None)
        return 0
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=start, args=(run_name, rank)) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return int(any(process.exitcode for process in ranks))


if __name__ == "__main__":
    sys.exit(main())
