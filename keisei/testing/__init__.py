"""For tests of training code: a tracker in memory, a W&B server on loopback, and the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keisei.integrations.conformance import Plan, PlannedError, check_adapter
from keisei.testing.memory import MemoryRun, MemoryTracker
from keisei.trackers.conformance import check_tracker

if TYPE_CHECKING:
    from keisei.testing.wandb_server import WandbServer

__all__ = [
    "MemoryRun",
    "MemoryTracker",
    "Plan",
    "PlannedError",
    "WandbServer",
    "check_adapter",
    "check_tracker",
]


def __getattr__(name: str) -> object:
    """Import what few tests need when it is first asked for: a server, and what it is made of."""
    if name == "WandbServer":
        from keisei.testing.wandb_server import WandbServer

        return WandbServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
