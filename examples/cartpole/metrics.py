"""Where an epoch's figures go: the screen, the training log, and the session's trackers."""

from __future__ import annotations

import logging
from dataclasses import asdict

from keisei import AsyncSessionManager

from . import display
from .config import CartPoleConfig
from .heartbeat import Heartbeat
from .training import Epoch

logger = logging.getLogger("examples.cartpole")


def report(
    session: AsyncSessionManager[CartPoleConfig], heartbeat: Heartbeat, epoch: Epoch
) -> None:
    """Show, log and track an epoch. None of it waits: W&B and TensorBoard follow the journal.

    session: must have been entered.
    heartbeat: measures how long the loop has been held.
    epoch: what to report.
    """
    display.line(str(epoch))
    logger.info("%s", epoch)
    figures = asdict(epoch)
    steps = figures.pop("steps")
    speed = {
        "steps_per_second": figures.pop("steps_per_second"),
        "longest_stall_ms": 1000 * heartbeat.longest_since_asked(),
    }
    session.log_metrics({"train": figures, "speed": speed}, step=steps)
