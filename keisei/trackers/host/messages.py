"""What crosses between the program and a host process: requests one way, news the other.

Both are frames of `pickle`, over two pipes that nobody else has: the host process is this program's
own child, and runs what the program has asked for in any case. No row is ever among them.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import IO, Any

from keisei.run.status import FinalStatus
from keisei.trackers.base import RunInfo
from keisei.trackers.state import WorkerState

BEGINS = "keisei.trackers.host.process"  # whose `begin` is called in a host process


@dataclass(frozen=True)
class Open:
    """Deliver a run to a tracker.

    Attributes:
        key: what the program calls this worker.
        tracker: the tracker's entry point.
        options: what the tracker is made with.
        kept: what of the options is stored in the cursor.
        info: what the tracker is told of the run.
        start_by: when its start has to be over, by the system's monotonic clock, in seconds.
        linger: how long the worker may outlive the program or its session, in seconds.
    """

    key: int
    tracker: str
    options: dict[str, object] = field(repr=False)
    kept: dict[str, object] = field(repr=False)
    info: RunInfo
    start_by: float | None
    linger: float


@dataclass(frozen=True)
class End:
    """The run has ended.

    Attributes:
        key: which worker's.
        status: how it ended.
        within: how long the session waits, in seconds.
    """

    key: int
    status: FinalStatus
    within: float


@dataclass
class News:
    """What has changed in the host process since the last frame.

    Attributes:
        states: snapshots of the workers that have changed, by key.
        logs: levels and texts of what keisei has logged there.
        idle: whether it has had nothing to do for a while.
    """

    states: dict[int, WorkerState] = field(default_factory=dict)
    logs: list[tuple[int, str]] = field(default_factory=list)
    idle: bool = False


def pack(message: object) -> bytes:
    """Return a message as a frame."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def unpack(source: IO[bytes]) -> Any:
    """Read the next message; blocks.

    Raises:
        EOFError: the other side is gone.
        pickle.UnpicklingError: it has gone in the middle of a message.
    """
    return pickle.load(source)
