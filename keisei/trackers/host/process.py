"""The host process: runs the workers of one kind of tracker for one program, and outlives it a bit.

Three threads: the main one watches the journals and the program, one takes requests, one sends news
(`outbox`); each worker has a thread of its own. When the program is gone, each run that has not
ended gets the rest of its journal and its true end, within its `linger`; then the process ends,
whatever a tracker is still doing.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import IO

from keisei._io.directories import leave_unsaid
from keisei._io.exits import exit_at_once
from keisei._io.files import OpenDirectory
from keisei.run.layout import RECORD_FILE
from keisei.run.session_file import SessionRecord
from keisei.run.status import FINAL, FinalStatus, check_final
from keisei.trackers.host.messages import End, Open, unpack
from keisei.trackers.host.outbox import Outbox
from keisei.trackers.loading import make_tracker
from keisei.trackers.overtaken import Overtaken
from keisei.trackers.worker import Worker

POLL = 0.1  # seconds between two looks at the journals and at the program
IDLE = 10.0  # seconds without a worker after which the program is told
EXIT_TIMEOUT = 1.0  # seconds for what a tracker's SDK wants to do at the exit
_NICENESS = 10
_IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK")


@dataclass
class _Delivery:
    """A worker here.

    Attributes:
        worker: the worker.
        linger: how long it may outlive the program or its session, in seconds.
        overtaken: looks whether a later attempt has taken the run over.
        until: when nobody waits for it any more, by the monotonic clock; ``None`` while it lives.
    """

    worker: Worker
    linger: float
    overtaken: Overtaken
    until: float | None = None


class HostProcess:
    """What the process does; `run` returns when it is time to end.

    Args:
        requests: where requests come from.
        news: where news goes.
        program: the id of the program's process.
    """

    def __init__(self, requests: IO[bytes], news: IO[bytes], program: int) -> None:
        self._requests, self._program = requests, program
        self._outbox = Outbox(news)
        self._lock = threading.Lock()
        self._deliveries: dict[int, _Delivery] = {}
        self._program_gone = threading.Event()

    def run(self) -> None:
        """Serve until the program is gone and the workers are done, or their time is over."""
        self._outbox.start()
        threading.Thread(target=self._take_requests, name="keisei-requests", daemon=True).start()
        idle_since: float | None = time.monotonic()
        while not self._program_gone.wait(POLL):
            if os.getppid() != self._program:  # one that it has forked may hold the pipe open
                self._program_gone.set()
            elif self._look():
                idle_since = None
            elif idle_since is None:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > IDLE:
                idle_since = time.monotonic()
                self._outbox.idle()
        self._finish_alone()
        self._outbox.flush(0.2)

    def _take_requests(self) -> None:
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                request = unpack(self._requests)
                if isinstance(request, Open):
                    self._open(request)
                elif isinstance(request, End):
                    self._end(request.key, request.status, request.within)
        self._program_gone.set()

    def _open(self, request: Open) -> None:
        with suppress(OSError):
            os.chdir(request.info.working_directory)  # where relative paths among the options begin
        leave_unsaid(request.info.directory)
        worker = Worker(
            request.tracker,
            request.info,
            partial(make_tracker, request.tracker, request.options),
            options=request.kept,
            on_change=partial(self._changed, request.key),
            start_by=request.start_by,
        )
        with self._lock:
            self._deliveries[request.key] = _Delivery(
                worker, request.linger, Overtaken(worker.home, request.info.attempt)
            )
        worker.begin()

    def _changed(self, key: int, worker: Worker) -> None:
        self._outbox.put(key, worker.state)
        if worker.state.attempted and not gc.isenabled():
            gc.freeze()
            gc.enable()
        if worker.state.done:
            with self._lock:
                self._deliveries.pop(key, None)

    def _end(self, key: int, status: FinalStatus, within: float) -> None:
        with self._lock:
            delivery = self._deliveries.get(key)
        if delivery is not None:
            delivery.until = time.monotonic() + within + delivery.linger
            delivery.worker.end(status, within + delivery.linger)

    def _look(self) -> bool:
        """Look at each worker's journal, and give up those whose time is over.

        Returns:
            Whether there is any worker.
        """
        with self._lock:
            deliveries = dict(self._deliveries)
        now = time.monotonic()
        for key, delivery in deliveries.items():
            delivery.worker.look()
            if delivery.until is None and delivery.overtaken.look():
                self._end(key, "failed", 0.0)  # the later attempt waits for the lock
            if delivery.until is not None and now > delivery.until:
                delivery.worker.abandon()
                with self._lock:
                    self._deliveries.pop(key, None)
        return bool(deliveries)

    def _finish_alone(self) -> None:
        """Bring each run to its end without the program, each within its `linger`."""
        with self._lock:
            deliveries = dict(self._deliveries)
        now = time.monotonic()
        for key, delivery in deliveries.items():
            if delivery.until is None:
                self._end(key, true_end(delivery.worker), 0.0)
            else:
                delivery.until = min(delivery.until, now + delivery.linger)
        while self._look():
            time.sleep(POLL / 5)


def true_end(worker: Worker) -> FinalStatus:
    """Return how a run has ended whose program is gone: as its session file says, else `failed`."""
    info = worker.info
    with suppress(OSError), OpenDirectory(worker.home.path()) as directory:
        record = SessionRecord.parsed(directory.read(RECORD_FILE) or b"")
        if record is not None and record.attempt == info.attempt and record.status in FINAL:
            return check_final(record.status)
    return "failed"


def main(requests: IO[bytes], news: IO[bytes], program: int) -> None:
    """Be the host process; never returns.

    Args:
        requests: where requests come from.
        news: where news goes.
        program: the id of the program's process.
    """
    for name in _IGNORED:  # what is sent to the program's terminal or group is not for it
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    gc.disable()  # until a tracker has started: what its import leaves is no garbage
    if hasattr(os, "nice"):
        os.nice(_NICENESS)  # the training goes first, where there are more threads than cores
    try:
        HostProcess(requests, news, program).run()
    finally:
        # A tracker's hooks may wait for a server, and so may its threads: neither is waited for.
        exit_at_once(0, EXIT_TIMEOUT)


def begin() -> None:
    """Be the host process, over the pipes that `client` has connected to it."""
    boot = sys.modules["__main__"]
    boot.keisei_host_process = True  # type: ignore[attr-defined]
    main(boot.requests, boot.news, os.getppid())
