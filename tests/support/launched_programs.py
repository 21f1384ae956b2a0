"""Programs as a user writes them, which a launcher starts as several processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from keisei._io.directories import OpenDirectory
from keisei.run.parts import PartState, parts_of
from tests.support.launchers import until

# Each rank logs until the file `stop` is there, and notes its process once a row is on disk. How
# often it was started before is what the run says.
RANKS = """
import os, sys, time
from pathlib import Path
from keisei import SessionManager, load_config

signs = Path(sys.argv[1])
names = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
rank = next(int(os.environ[name]) for name in names if name in os.environ)
with SessionManager(load_config(overrides=sys.argv[2:])) as session:
    step = 0
    while not (signs / "stop").exists():
        step += 1
        session.log_metrics({"loss": 1 / step, "rank": rank}, step=step)
        if step == 5:
            session.flush()
            attempt = session.get_session_summary()["attempt"]
            (signs / f"{attempt}.{rank}").write_text(str(os.getpid()))
        time.sleep(0.02)
"""

# The same on an event loop, with a process group of torch: each step waits for all ranks.
GLOO = """
import os, sys
from pathlib import Path

import anyio
import torch
import torch.distributed as dist

from keisei import AsyncSessionManager, load_config


async def main():
    signs = Path(sys.argv[1])
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    async with AsyncSessionManager(load_config(overrides=sys.argv[2:])) as session:
        stop, step = False, 0
        while not stop:
            step += 1
            losses = torch.tensor([float(rank), float((signs / "stop").exists())])
            await anyio.to_thread.run_sync(dist.all_reduce, losses)
            stop = losses[1].item() > 0
            session.log_metrics({"loss": rank, "mean": losses[0].item() / size}, step=step)
            if step == 5:
                await session.flush()
                attempt = session.get_session_summary()["attempt"]
                (signs / f"{attempt}.{rank}").write_text(str(os.getpid()))
            await anyio.sleep(0.02)
    dist.destroy_process_group()


anyio.run(main)
"""


class Ranks:
    """What the ranks of such a program tell the test, and are told by it.

    Parameters:
        directory: Where the program and its signs are.
        text: The program.
    """

    def __init__(self, directory: Path, text: str = RANKS) -> None:
        self.signs = directory / "signs"
        self.signs.mkdir()
        self.file = directory / "train.py"
        self.file.write_text(text)

    def arguments(self, *overrides: str) -> list[str]:
        """Return the program and its arguments, without the interpreter."""
        return [str(self.file), str(self.signs), *overrides]

    def command(self, *overrides: str) -> list[str]:
        """Return the program's command."""
        return [sys.executable, *self.arguments(*overrides)]

    def pid_of(self, rank: int, attempt: int = 1) -> int | None:
        """Return the process of a rank, once it has logged."""
        sign = self.signs / f"{attempt}.{rank}"
        return int(sign.read_text() or 0) or None if sign.exists() else None

    def wait_for(self, size: int, output: Callable[[], str], attempt: int = 1) -> None:
        """Wait until all ranks of an attempt have logged, or fail with what there is to say."""
        ranks = range(size)
        until(
            lambda: all(self.pid_of(rank, attempt) for rank in ranks),
            lambda: f"{sorted(sign.name for sign in self.signs.iterdir())} {output()}",
        )

    def kill(self, rank: int, attempt: int = 1) -> None:
        """Kill a rank, as a machine that runs out of memory does."""
        pid = self.pid_of(rank, attempt)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def stop(self, step: int = 0) -> None:
        """Tell all ranks to end, at a step where they look for one."""
        told = self.signs / "told"
        told.write_text(str(step))
        told.rename(self.signs / "stop")


def parts_in(directory: str) -> dict[str, PartState]:
    """Return the states of a run's parts, each in its last attempt."""
    with OpenDirectory(directory) as run:
        return {part.part: part.state for part in parts_of(run)}
