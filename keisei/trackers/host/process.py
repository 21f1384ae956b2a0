"""The process in which a tracker lives apart: it does what it is asked, until nobody asks."""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from keisei._log import logger
from keisei.trackers.base import Tracker, TrackerRun
from keisei.trackers.host.client import END_TIMEOUT, FACTS
from keisei.trackers.loading import make_tracker

_LOOK_EVERY = 1.0  # seconds
_NICENESS = 10
_IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")


class _Told(logging.Handler):
    """Hands keisei's own log records to the program."""

    def __init__(self, answers: IO[bytes]) -> None:
        super().__init__()
        self.answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it over, as text."""
        _say(self.answers, "log", record.levelno, "%s", record.getMessage())


class _Here:
    """The tracker and its run, in this process."""

    tracker: Tracker
    run: TrackerRun

    def make(self, path: list[str], name: str, options: dict[str, object]) -> object:
        """Make the tracker as the program would."""
        sys.path[:] = path
        self.tracker = make_tracker(name, options)
        return self.tracker.name, self.tracker.start_timeout

    def start(self, info: Any) -> object:
        """Start its run."""
        self.run = self.tracker.start(info)
        return [getattr(self.run, name) for name in FACTS]

    def send(self, records: Any) -> None:
        """Send it records."""
        self.run.send(records)

    def position(self) -> object:
        """Ask for its position."""
        place = self.run.position()
        return None if place is None else tuple(place)

    def finish(self, status: Any) -> None:
        """End its run."""
        self.run.finish(status)


def main() -> None:
    """Answer requests until their end, then end this process, whatever the tracker is doing."""
    for name in _IGNORED:  # the program tells when to end
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(_NICENESS)  # the training goes first, where there are more threads than cores
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    logger.addHandler(_Told(answers))
    logger.propagate = False
    waiting: queue.Queue[tuple[str, tuple[object, ...]] | None] = queue.Queue()
    worker = threading.Thread(target=_work, args=(waiting, answers), daemon=True)
    worker.start()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with suppress(EOFError, OSError, pickle.UnpicklingError):
        while True:
            waiting.put(pickle.load(requests))
    waiting.put(None)
    worker.join(END_TIMEOUT)
    os._exit(0)  # a tracker's own threads and hooks wait for servers


def _work(waiting: queue.Queue[tuple[str, tuple[object, ...]] | None], answers: IO[bytes]) -> None:
    here = _Here()
    while (request := waiting.get()) is not None:
        method, args = request
        try:
            result = getattr(here, method)(*args)
        except BaseException as exc:  # noqa: BLE001 - foreign code; the program is told
            _say(answers, "error", type(exc).__name__, str(exc))
            del exc
        else:
            _say(answers, "result", result)


def _say(answers: IO[bytes], *said: object) -> None:
    with suppress(OSError):  # nobody listens any more: the end of the requests comes next
        answers.write(pickle.dumps(said))
        answers.flush()


def _end_with(parent: int) -> None:
    """End when the program has: one that it has forked may hold the pipe open."""
    tick = threading.Event()
    while os.getppid() == parent:
        tick.wait(_LOOK_EVERY)
    tick.wait(END_TIMEOUT)
    os._exit(0)
