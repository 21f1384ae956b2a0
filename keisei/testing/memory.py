"""A tracker that keeps everything in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from keisei.run.status import FinalStatus
from keisei.trackers.base import Position, Record, RunInfo, Tracker, TrackerRun


@dataclass
class MemoryRun(TrackerRun):
    """A run that `MemoryTracker` has started.

    Attributes:
        info: what the tracker was told of the run.
        records: the rows and events that it was sent, in their order.
        ends: the statuses that `finish` was called with: one, if all is well.
    """

    info: RunInfo
    records: list[Record] = field(default_factory=list)
    ends: list[FinalStatus] = field(default_factory=list)
    url: str | None = field(default=None, repr=False)  # it may hold a secret

    def __post_init__(self) -> None:
        self.run_id, self.mode = self.info.session_id, "offline"

    def send(self, records: Sequence[Record]) -> None:
        """Keep the records."""
        self.records.extend(records)

    def position(self) -> Position | None:
        """Return the position of the last record."""
        last = self.records[-1] if self.records else None
        return last and Position(last.attempt, last.seq)

    def rewind(self, after: Position) -> bool:
        """Drop the records behind a position."""
        held = [one for one in self.records if (one.attempt, one.seq) <= after]
        self.records[:] = held
        return True

    def finish(self, status: FinalStatus) -> None:
        """Keep the status."""
        self.ends.append(status)


@dataclass
class MemoryTracker(Tracker):
    """Keeps in memory what a session sends to its trackers.

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
