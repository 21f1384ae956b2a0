"""What is known of a tracker's worker, on a thread of the program or in a host process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from keisei._io.loop import ThreadEvent
from keisei.journal.records import Position
from keisei.run.session_file import TrackerRecord
from keisei.run.status import FinalStatus
from keisei.trackers.base import RunInfo
from keisei.trackers.cursor import NOWHERE


class WorkerState(NamedTuple):
    """A snapshot of a worker: plain and picklable.

    Attributes:
        record: what is known of the tracker's run.
        position: the last record that the tracker was sent.
        earlier: how many records of earlier attempts come after it.
        sent: how many records this worker has sent.
        kept: whether the cursor is stored, so that the tracker can be brought up to date later.
        live: whether the tracker has started the run.
        start_timeout: the longest that the start may take, in seconds; 0 while that is not known.
        attempted: whether the first start has come to an end, well or not.
        closing: whether it only waits for what the tracker has left under way.
        done: whether the worker has nothing left to do.
    """

    record: TrackerRecord = TrackerRecord(state="connecting")
    position: Position = NOWHERE
    earlier: int = 0
    sent: int = 0
    kept: bool = False
    live: bool = False
    start_timeout: float = 0.0
    attempted: bool = False
    closing: bool = False
    done: bool = False


class WorkerHandle:
    """What a session holds of a tracker's worker.

    Args:
        name: the tracker's name.
        info: what the tracker is told of the run.
        logged: returns how many records this attempt has logged.

    Attributes:
        state: the latest snapshot; replaced as a whole, by one thread at a time.
        made: set when ``start_timeout`` is known, or nobody needs to know it any more.
        attempted: set when the first start has come to an end, or nobody waits for it any more.
        done: set when the worker has nothing left to do that a session would wait for.
        abandoned: whether the session has ended without waiting for the worker any longer.
        started_at: when the worker was asked for, by the monotonic clock, in seconds.
        made_at: when the tracker was made.
    """

    def __init__(self, name: str, info: RunInfo, logged: Callable[[], int]) -> None:
        self.name, self.info = name, info
        self.state = WorkerState()
        self.made, self.attempted, self.done = ThreadEvent(), ThreadEvent(), ThreadEvent()
        self.abandoned = False
        self.started_at = self.made_at = time.monotonic()
        self._logged = logged

    def begin(self) -> None:
        """Start the worker; never waits."""
        raise NotImplementedError

    def wake(self) -> None:
        """Note that the journal has grown; never waits."""

    def end(self, status: FinalStatus, within: float) -> None:
        """Ask the worker to send the backlog and to end the tracker's run; never waits.

        Args:
            status: how the run ended.
            within: how long the session waits for it, in seconds.
        """
        raise NotImplementedError

    def abandon(self) -> None:
        """Note that the session waits no longer."""
        self.abandoned = True

    def update(self, state: WorkerState) -> None:
        """Take a new snapshot, and wake whoever waits for what it says."""
        self.state = state
        if state.attempted or state.done:
            self.attempted.set()  # first: who waits for `made` looks at it then
        if not self.made.is_set() and (state.start_timeout or state.attempted or state.done):
            self.made_at = time.monotonic()
            self.made.set()
        if state.closing or state.done:
            self.done.set()

    @property
    def live(self) -> bool:
        """Whether the tracker has started the run."""
        return self.state.live

    @property
    def behind(self) -> int:
        """How many records the tracker has not got yet."""
        state = self.state
        here = state.position.seq + 1 if state.position.attempt == self.info.attempt else 0
        return max(0, state.earlier + self._logged() - here)

    def record(self) -> TrackerRecord:
        """Return what is known of the tracker by now, for the session file and the summary."""
        changes: dict[str, object] = {"behind": self.behind}
        if self.abandoned and not self.state.done:
            changes["state"] = "abandoned"
        return self.state.record.model_copy(update=changes)
