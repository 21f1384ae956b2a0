"""The series of the runs that are looked at, kept in memory as long as there is room."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from keisei.dashboard.series import RunSeries, Stopped

MOST_BYTES = 1 << 30  # of columns that are kept, the last asked for apart
_PATIENCE = 0.1  # seconds that an answer waits for what is being read
_LOOK = 0.01  # seconds

_Key = tuple[str, str | None]


class Kept:
    """Reads runs in the background, and forgets those that were asked for longest ago.

    Args:
        stopping: whether the server ends.
    """

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._guard = threading.Lock()
        self._runs: OrderedDict[_Key, RunSeries] = OrderedDict()
        self._reading: dict[_Key, threading.Event] = {}
        self._problems: dict[_Key, OSError] = {}

    def run(self, directory: str, part: str | None = None) -> RunSeries:
        """Return the series of a run as far as they are read by now.

        Args:
            directory: the run's directory.
            part: the part; ``None`` for the owner's own.

        Raises:
            OSError: it cannot be read.
        """
        key = directory, part
        with self._guard:
            run = self._runs.pop(key, None) or RunSeries(directory, part, self._stopping)
            self._runs[key] = run
            self._forget()
            done = self._reading.get(key)
            if done is None:
                done = self._reading[key] = threading.Event()
                name = "keisei-ui-read"
                threading.Thread(
                    target=self._read, args=(key, run, done), name=name, daemon=True
                ).start()
        until = time.monotonic() + _PATIENCE
        while not done.wait(_LOOK) and time.monotonic() < until:
            if run.share < 1.0 and run.rows:  # there is something to show, and more later
                break
        with self._guard:
            problem = self._problems.pop(key, None)
        if problem is not None:
            raise problem
        return run

    def close(self) -> None:
        """Close all files."""
        with self._guard:
            for run in self._runs.values():
                run.close()
            self._runs.clear()

    def _read(self, key: _Key, run: RunSeries, done: threading.Event) -> None:
        try:
            with suppress(Stopped):
                run.refresh()
        except OSError as exc:
            with self._guard:
                self._problems[key] = exc
                self._runs.pop(key, None)
        finally:
            with self._guard:
                self._reading.pop(key, None)
            done.set()

    def _forget(self) -> None:
        total = sum(run.bytes for run in self._runs.values())
        for key in list(self._runs)[:-1]:
            if total <= MOST_BYTES:
                break
            if key not in self._reading:
                total -= self._runs[key].bytes
                self._runs.pop(key).close()
