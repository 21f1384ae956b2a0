"""What a host process sends to its program: the latest state of each worker, and log lines.

A worker that changes a thousand times a second, or a tracker that logs without end, costs the
program a frame each quarter of a second: older states are replaced, and log lines beyond a hundred
in a frame are only counted. What a session may wait for goes at once.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import IO

from keisei._log import logger
from keisei.trackers.host.messages import News, pack
from keisei.trackers.state import WorkerState

INTERVAL = 0.25  # seconds between two frames
MOST_LINES = 100


class Outbox:
    """Collects news and sends it, on a thread of its own.

    Args:
        pipe: where it goes.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._news = News()
        self._left_out = self._frames = 0
        self._waits: dict[int, tuple[bool, ...]] = {}
        self._any, self._urgent = threading.Event(), threading.Event()
        self._sent = threading.Condition(self._lock)

    def start(self) -> None:
        """Start the thread, and take what keisei logs in this process."""
        logger.addHandler(_ToProgram(self))
        logger.propagate = False
        threading.Thread(target=self._run, name="keisei-news", daemon=True).start()

    def put(self, key: int, state: WorkerState) -> None:
        """Replace what is to be sent of a worker."""
        waits = (state.live, bool(state.start_timeout), state.attempted, state.closing, state.done)
        with self._lock:
            self._news.states[key] = state
            urgent = self._waits.get(key) != waits
            self._waits[key] = waits
            if state.done:
                del self._waits[key]
        self._any.set()
        if urgent:
            self._urgent.set()

    def log(self, level: int, text: str) -> None:
        """Add a line that keisei has logged."""
        with self._lock:
            if len(self._news.logs) < MOST_LINES:
                self._news.logs.append((level, text))
            else:
                self._left_out += 1
        self._any.set()

    def idle(self) -> None:
        """Note that there has been nothing to do for a while."""
        with self._lock:
            self._news.idle = True
        self._any.set()

    def flush(self, timeout: float) -> None:
        """Wait until everything is sent; what a program that is gone leaves unread is dropped."""
        self._urgent.set()
        self._any.set()
        with self._sent:
            frames = self._frames
            self._sent.wait_for(lambda: self._frames > frames + 1 or self._is_empty(), timeout)

    def _is_empty(self) -> bool:
        return not self._any.is_set()

    def _run(self) -> None:
        while True:
            self._any.wait()
            with self._lock:
                news, self._news = self._news, News()
                self._any.clear()
                self._urgent.clear()
                if self._left_out:
                    news.logs.append((logging.WARNING, f"{self._left_out:,} lines were left out"))
                    self._left_out = 0
            with suppress(OSError, ValueError):  # the program is gone
                self._pipe.write(pack(news))
                self._pipe.flush()
            with self._sent:
                self._frames += 1
                self._sent.notify_all()
            self._urgent.wait(INTERVAL)


class _ToProgram(logging.Handler):
    """Hands what keisei logs here to the program."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it over, as text."""
        self._outbox.log(record.levelno, record.getMessage())
