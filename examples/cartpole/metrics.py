"""Where an epoch's figures go: the screen, the run's training log and W&B."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream

from keisei import AsyncSessionManager

from .config import CartPoleConfig
from .display import Display
from .learner import Epoch


async def report(
    session: AsyncSessionManager[CartPoleConfig],
    display: Display,
    epochs: MemoryObjectReceiveStream[Epoch],
) -> None:
    """Show, log and track every epoch, until the learner closes its end of the stream.

    session: says where the training log is, and holds the W&B run if there is one.
    display: the screen.
    epochs: comes from the learner.
    """
    send, receive = anyio.create_memory_object_stream[Epoch](math.inf)
    async with (
        receive,
        await anyio.open_file(session.log_file_path, "a", encoding="utf-8") as log,
        anyio.create_task_group() as tasks,
        send,
    ):
        tasks.start_soon(track, session.wandb_run, receive)
        async for epoch in epochs:
            display.show(epoch)
            now = datetime.now().astimezone().isoformat(timespec="milliseconds")
            await log.write(f"[{now}] {epoch}\n")
            await log.flush()
            send.send_nowait(epoch)


async def track(wandb_run: Any, epochs: MemoryObjectReceiveStream[Epoch]) -> None:
    """Hand every epoch to W&B, one at a time.

    wandb_run: the session's run object, or None where W&B is not active.
    epochs: what to track.
    """
    async for epoch in epochs:
        if wandb_run is not None:
            # W&B's own code may block (tens of ms where its server is slow), so it runs on a
            # thread, from a task that neither the learner nor the screen waits for.
            log = partial(wandb_run.log, asdict(epoch), step=epoch.steps)
            await anyio.to_thread.run_sync(log, abandon_on_cancel=True)
