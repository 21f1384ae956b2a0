"""For tests of training code: a tracker in memory, a W&B server on loopback, and the checks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from keisei.config.conformance import check_config_source
from keisei.distributed.conformance import check_launcher
from keisei.integrations.conformance import check_adapter
from keisei.integrations.planned import Plan, PlannedError
from keisei.monitoring.conformance import check_sampler
from keisei.testing.installing import installed
from keisei.testing.memory import MemoryRun, MemoryTracker
from keisei.trackers.conformance import check_tracker

if TYPE_CHECKING:
    from keisei.testing.clock import Clock
    from keisei.testing.faults import Faults, HungTracker
    from keisei.testing.sessions import Sessions
    from keisei.testing.wandb_server import WandbServer

__all__ = [
    "Clock",
    "Faults",
    "HungTracker",
    "MemoryRun",
    "MemoryTracker",
    "Plan",
    "PlannedError",
    "Sessions",
    "WandbServer",
    "check_adapter",
    "check_config_source",
    "check_launcher",
    "check_sampler",
    "check_tracker",
    "installed",
]

# What few tests need is imported when it is first asked for.
_LATER = {
    "Clock": "clock",
    "Faults": "faults",
    "HungTracker": "faults",
    "Sessions": "sessions",
    "WandbServer": "wandb_server",
}


def __getattr__(name: str) -> object:
    """Import what is imported when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
