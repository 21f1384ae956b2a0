"""Bounds what the workers of trackers compute together beside an event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """Leaves most of the interpreter's time to the program; one for all workers in the program.

    Workers compute one after the other, each for as long as it did the last time, and after each
    turn all rest three times as long: together they take a quarter of the time at most. Two hundred
    that were woken at the same instant would have the interpreter in turns, and the loop would wait
    behind each. A worker that is behind sends more in its next turn.
    """

    REST = 3.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait_turn(self, expected: float, interrupted: threading.Event) -> None:
        """Wait for one's turn to compute.

        Args:
            expected: the CPU time that the turn will take, in seconds.
            interrupted: ends the wait.
        """
        now = time.monotonic()
        with self._lock:
            starts = max(self._free_at, now)
            self._free_at = starts + (1 + self.REST) * expected
        if starts > now:
            interrupted.wait(starts - now)

    def end_turn(self, expected: float, computed: float) -> None:
        """Note what a turn has really taken.

        Args:
            expected: what `wait_turn` was told.
            computed: the CPU time that was used, in seconds.
        """
        rested = time.monotonic() + self.REST * computed  # a turn may have been interrupted
        with self._lock:
            self._free_at = max(self._free_at + (1 + self.REST) * (computed - expected), rested)


class Turns:
    """The turns of one worker: each is expected to take as long as the last one that did something.

    Args:
        pace: what they keep to; ``None`` for a worker that waits for nobody.
        interrupted: from when it is set, nothing is waited for.
    """

    def __init__(self, pace: Pace | None, interrupted: threading.Event) -> None:
        self._pace, self._interrupted = pace, interrupted
        self._expected = 0.001  # seconds of CPU time

    @contextmanager
    def next(self) -> Iterator[list[object]]:
        """Wait for a turn to compute, and take it; what is yielded holds whatever was done."""
        done: list[object] = []
        if self._pace is None or self._interrupted.is_set():
            yield done
            return
        expected = self._expected
        self._pace.wait_turn(expected, self._interrupted)
        began = time.thread_time()
        yield done
        computed = time.thread_time() - began
        self._pace.end_turn(expected, computed)
        if done:
            self._expected = computed


PACE = Pace()
