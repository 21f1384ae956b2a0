"""Bounds what the workers of trackers compute together beside an event loop."""

from __future__ import annotations

import threading
import time


class Pace:
    """Leaves most of the interpreter's time to the program; one for all workers in the program.

    What the workers compute together is a quarter of the time at most: each rests in its turn,
    three times as long as it has computed, and not while another one does. Four that always
    computed would have four fifths of the interpreter, and the loop would wait behind each.
    """

    REST = 3.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = 0.0

    def rest(self, computed: float, interrupted: threading.Event) -> None:
        """Wait for one's turn to compute again.

        Args:
            computed: the CPU time that was used since the last rest, in seconds.
            interrupted: ends the wait.
        """
        now = time.monotonic()
        with self._lock:
            self._free_at = max(self._free_at, now) + self.REST * computed
            pause = self._free_at - now
        interrupted.wait(pause)
