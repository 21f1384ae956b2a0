"""For the tests of programs that use keisei: a tracker that keeps everything in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from keisei.run.state import FinalStatus
from keisei.trackers.base import RunInfo


@dataclass
class MemoryRun:
    """A run that `MemoryTracker` has started.

    Attributes:
        info: what the tracker was told of the run.
        ends: the statuses that `finish` was called with: one, if all is well.
    """

    info: RunInfo
    ends: list[FinalStatus] = field(default_factory=list)
    url: str | None = field(default=None, repr=False)  # it may hold a secret
    mode: Literal["online", "offline"] = "offline"
    directory: str | None = None
    upload_as: str | None = None

    @property
    def run_id(self) -> str:
        """The session's id."""
        return self.info.session_id

    @property
    def native(self) -> MemoryRun:
        """The run itself."""
        return self

    def finish(self, status: FinalStatus) -> None:
        """Note the end."""
        self.ends.append(status)


@dataclass
class MemoryTracker:
    """Keeps in memory what a session tells its trackers.

    Start it with ``await session.setup_remote_logging(MemoryTracker())``.

    Attributes:
        name: the tracker's name.
        start_timeout: the longest that a session waits for its start, in seconds.
        runs: the runs that it has started, in their order.
    """

    name: str = "memory"
    start_timeout: float = 10.0
    runs: list[MemoryRun] = field(default_factory=list)

    def start(self, run: RunInfo) -> MemoryRun:
        """Start a run."""
        started = MemoryRun(run)
        self.runs.append(started)
        return started
