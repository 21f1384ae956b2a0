"""A tracker that computes without end leaves most of the time to the training."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest

from keisei import SessionManager
from keisei.testing import MemoryRun, MemoryTracker
from keisei.trackers.base import Record, RunInfo
from keisei.trackers.worker import BATCH
from tests.conftest import MakeConfig


class Computing(MemoryTracker):
    """Computes for 5 ms each time that it is sent something, and notes when and how long."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, float, float]] = []
        self.third = threading.Event()

    def start(self, run: RunInfo) -> MemoryRun:
        """Start a run that computes."""
        tracker = self

        class ComputingRun(MemoryRun):
            def send(self, records: Sequence[Record]) -> None:
                """Compute, and keep the records."""
                began, used = time.monotonic(), time.thread_time()
                while time.thread_time() < used + 0.005:
                    pass
                super().send(records)
                tracker.calls.append((began, time.monotonic(), time.thread_time() - used))
                if len(tracker.calls) == 3:
                    tracker.third.set()

        started = ComputingRun(run)
        self.runs.append(started)
        return started


@pytest.mark.requirement("HOST-5")
def test_a_busy_tracker_leaves_most_of_the_time_to_the_training(make_config: MakeConfig) -> None:
    """It rests three times as long as it has computed, and not at all at the end."""
    tracker = Computing()
    with SessionManager(make_config()) as session:
        session.setup_remote_logging(tracker)
        for step in range(10 * BATCH):
            session.log_metrics({"loss": 1.0}, step=step)
        assert tracker.third.wait(60)
    first, second, third, *last = tracker.calls
    for one, next_one in ((first, second), (second, third)):
        assert next_one[0] - one[1] >= 3 * one[2]
    # On a busy machine one call may begin late; that all of them do would be rest.
    assert any(later[0] - one[1] < 3 * one[2] for one, later in pairwise(last))
    assert len(tracker.runs[0].records) == 10 * BATCH
