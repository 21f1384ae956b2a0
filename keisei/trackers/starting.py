"""Start a run within a deadline; one that comes alive later is closed at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from keisei._io.offload import offload
from keisei.trackers.base import TrackerRun

RunT = TypeVar("RunT", bound=TrackerRun)


async def start_within(timeout: float, start: Callable[[], RunT], name: str) -> RunT:
    """Start a tracker's run within a deadline; one that comes alive later is closed at once.

    Args:
        timeout: the longest wait, in seconds.
        start: the blocking call that gives the run.
        name: the tracker's name, for its thread.

    Raises:
        TimeoutError: the deadline passed. What the tracker raises is raised as it is.
    """
    return await offload(start, timeout=timeout, on_late=_close, name=f"keisei-{name}-start")


def _close(late: TrackerRun) -> None:
    """Close a run that came alive when nobody waited for it any more: it never tracked a thing."""
    with suppress(Exception):
        late.finish("failed")
