"""The program's side of host processes: one for each kind of tracker, shared by all sessions.

Each has two daemon threads here: one starts the process and writes requests, one reads news. A
process that dies is replaced, with backoff, and goes on from the cursors. When a process says that
it is idle, and no worker has come meanwhile, its requests end, and so does it. A program that ends
waits for nothing: the process sees that, and brings the runs to their end by itself.

Another environment of the program makes another process, for SDKs read it; another working
directory is told with each request.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import IO, cast

from keisei._io.backoff import Backoff
from keisei._io.forks import after_in_child
from keisei._io.spawn import (
    GREETING,
    GREETING_TIMEOUT,
    found_out,
    kill,
    program,
    reap,
    say_once,
    spawn,
    wrong_with,
)
from keisei._log import logger
from keisei.errors import describe, quoted
from keisei.run.status import FinalStatus
from keisei.trackers.base import RunInfo
from keisei.trackers.host.messages import BEGINS, End, News, Open, pack, unpack
from keisei.trackers.loading import kind_of, make_tracker
from keisei.trackers.pace import PACE
from keisei.trackers.places import absolute_environ, working_directory
from keisei.trackers.state import WorkerHandle, WorkerState
from keisei.trackers.worker import FIRST_PAUSE, LONGEST_PAUSE, Worker

# Seconds. A fork holds the GIL for a millisecond or more: the call on a loop is over before.
_HOLD_BACK = 0.02

_Kind = tuple[str, str, frozenset[tuple[str, str]]]

# What changes without any tracker's reading it: pytest names the test that runs.
_UNREAD = frozenset(["PYTEST_CURRENT_TEST"])
_keys = itertools.count(1)
_hosts: dict[_Kind, Host] = {}
_lock = threading.Lock()
_inherited: list[Host] = []  # by a forked child: kept, so that nothing of them is closed twice


class HostedWorker(WorkerHandle):
    """A worker that runs in a host process.

    Args:
        name: the tracker's name, which is its entry point.
        info: what the tracker is told of the run.
        options: what the tracker is made with.
        kept: what of them is stored in the cursor.
        logged: returns how many records this attempt has logged.
        start_by: when the start has to be over, by the monotonic clock, in seconds.
        linger: how long the worker may outlive the program or the session, in seconds.

    Attributes:
        here: the worker in the program, where there turned out to be no host process.
    """

    def __init__(
        self,
        name: str,
        info: RunInfo,
        options: dict[str, object],
        kept: dict[str, object],
        logged: Callable[[], int],
        *,
        start_by: float | None = None,
        linger: float,
    ) -> None:
        super().__init__(name, info, logged)
        self.open = Open(next(_keys), name, options, kept, info, start_by, linger)
        self.ended: End | None = None
        self.wait_until: float | None = None
        self.here: Worker | None = None
        self._host: Host | None = None

    def begin(self) -> None:
        """Ask the host process for the worker, which is started if it has to be; never waits."""
        try:
            pack(self.open)
        except Exception as exc:  # noqa: BLE001 - the options' own code
            problem = f"its options cannot be sent to its process ({describe(exc)})"
            text = "%s did not start (%s): run %s goes on without it."
            logger.warning(text, self.name, problem, self.info.run_name)
            self.fail(problem, done=True)
            return
        self._host = _host_for(self)

    def end(self, status: FinalStatus, within: float) -> None:
        """Request the end of the run from the host process; never waits."""
        self.ended = End(self.open.key, status, within)
        self.wait_until = time.monotonic() + within + self.open.linger
        self.attempted.set()
        self.made.set()
        if self.here is not None:
            self.here.end(status, within)
        elif self._host is not None:
            self._host.request(self.ended)

    def wake(self) -> None:
        """Note that the journal has grown, to a worker in the program; never waits."""
        if self.here is not None:
            self.here.wake()

    def abandon(self) -> None:
        """Note that the session waits no longer."""
        super().abandon()
        if self.here is not None:
            self.here.abandon()

    def begin_here(self) -> None:
        """Start the worker in the program instead."""
        asked = self.open
        here = Worker(
            self.name,
            self.info,
            partial(make_tracker, self.name, asked.options),
            options=asked.kept,
            logged=self._logged,
            on_change=lambda worker: self.update(worker.state),
            start_by=asked.start_by,
            pace=PACE,
        )
        here.begin()
        self.here = here
        if self.ended is not None:
            here.end(self.ended.status, self.ended.within)
        here.abandoned = self.abandoned

    def fail(self, problem: str, *, done: bool = False) -> None:
        """Note that the host process is not there, until it is again, or for good."""
        record = self.state.record.model_copy(update={"state": "broken", "problem": problem})
        self.update(self.state._replace(record=record, attempted=True, kept=not done, done=done))


class Host:
    """One host process, and those that replace it.

    Args:
        kind: the tracker's name, the program's Python, and what the process inherits.
    """

    def __init__(self, kind: _Kind) -> None:
        self.name, self._kind = kind[0], kind
        self._workers: dict[int, HostedWorker] = {}
        self._mailbox: SimpleQueue[Open | End | News | bytes | str] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._died = False

    def start(self) -> None:
        """Start the thread that starts the process.

        Raises:
            RuntimeError: the system has no thread left.
        """
        threading.Thread(target=self._serve, name=f"keisei-{self.name}-host", daemon=True).start()

    def add(self, worker: HostedWorker) -> None:
        """Ask for a worker, under the lock of all hosts."""
        self._workers[worker.open.key] = worker
        self._mailbox.put(worker.open)

    def retire(self) -> None:
        """End the process if it has nothing to do: another one has taken its place."""
        if not self._workers:
            self._mailbox.put(News(idle=True))

    def request(self, end: End) -> None:
        """Request the end of a worker's run."""
        self._mailbox.put(end)

    def leave(self) -> None:
        """Close what a forked child has inherited; the process is its parent's."""
        process, self._process = self._process, None
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError, AttributeError):
                    os.close(cast(IO[bytes], pipe).fileno())

    def _serve(self) -> None:
        time.sleep(_HOLD_BACK)
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            problem = self._start_process()
            if problem is None:
                problem = self._talk(backoff)
                if problem is None:
                    return
            if (reason := wrong_with(self._kind[1])) is not None:
                self._end_without(reason)
                return
            if not self._survives(problem, backoff.next()):
                return

    def _start_process(self) -> str | None:
        """Start the process; returns why it cannot be started."""
        try:
            environ = dict(self._kind[2])
            self._process = process = spawn(self._kind[1], environ, working_directory(), BEGINS)
            reader = threading.Thread(
                target=self._read, args=(process,), name=f"keisei-{self.name}-news", daemon=True
            )
            reader.start()
        except (OSError, RuntimeError) as exc:
            return f"its process cannot be started ({describe(exc)})"
        return None

    def _greeted(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the process says that it is one of ours; end one that does not say it."""
        until = time.monotonic() + GREETING_TIMEOUT
        message: object = None
        with suppress(Empty):
            while message is not GREETING and not isinstance(message, str):
                message = self._mailbox.get(timeout=max(0.0, until - time.monotonic()))
        if message is GREETING:
            return True
        with suppress(subprocess.TimeoutExpired):  # its output may have ended before it
            process.wait(1.0 if isinstance(message, str) else 0.0)
        if process.poll() is None:
            kill(process)
        elif process.returncode < 0:  # it was killed, which says nothing of it
            return False
        found_out(self._kind[1], "what it starts is no process of a tracker")
        return False

    def _talk(self, backoff: Backoff) -> str | None:
        """Hand requests to the process until it ends; returns why, and ``None`` where it should."""
        process = self._process
        assert process is not None
        if not self._greeted(process):
            reap(process)
            return f"its process has ended (status {process.returncode})"
        with _lock:
            known = list(self._workers.values())
        for worker in known:
            self._write(process, worker.open)
            if worker.ended is not None:
                self._write(process, worker.ended)
        sent = {worker.open.key for worker in known}
        while True:
            message = self._mailbox.get()
            if isinstance(message, bytes):
                continue
            if isinstance(message, str):  # it has ended
                reap(process)
                return message or f"its process has ended (status {process.returncode})"
            if isinstance(message, News):
                if any(state.sent for state in message.states.values()):
                    backoff.reset()
                if message.idle and self._close(process):
                    return None
            elif isinstance(message, End) or message.key not in sent:
                self._write(process, message)

    def _write(self, process: subprocess.Popen[bytes], message: Open | End) -> None:
        frame = memoryview(pack(message))
        with suppress(OSError):  # it has ended, which the other thread says
            while frame:
                frame = frame[cast(IO[bytes], process.stdin).write(frame) or 0 :]

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        failure = ""
        with (
            suppress(EOFError, OSError, ValueError, pickle.UnpicklingError),
            open(cast(IO[bytes], process.stdout).fileno(), "rb", closefd=False) as source,
        ):
            if source.read(len(GREETING)) != GREETING:  # nothing of it is read on
                raise EOFError
            self._mailbox.put(GREETING)
            while True:
                news = unpack(source)
                if isinstance(news, str):
                    failure = f"its process cannot begin ({quoted(news, 300)[1:-1]})"
                    continue
                for level, text in news.logs:
                    logger.log(level, "%s", text)
                for key, state in news.states.items():
                    self._update(key, state)
                self._mailbox.put(news)
        self._mailbox.put(failure)

    def _update(self, key: int, state: WorkerState) -> None:
        worker = self._workers.get(key)
        if worker is not None:
            if state.done:
                with _lock:
                    self._workers.pop(key, None)
            worker.update(state)

    def _close(self, process: subprocess.Popen[bytes]) -> bool:
        """End the process where no worker has come meanwhile."""
        with _lock:
            self._give_up()
            if self._workers:
                return False
            self._forget()
        cast(IO[bytes], process.stdin).close()
        while not isinstance(self._mailbox.get(), str):
            pass
        reap(process)
        return True

    def _give_up(self) -> list[HostedWorker]:
        """Forget the workers whose time is over, under the lock of all hosts, and return them."""
        now = time.monotonic()
        over = [w for w in self._workers.values() if w.wait_until and now > w.wait_until]
        for worker in over:
            del self._workers[worker.open.key]
        return over

    def _forget(self) -> None:
        if _hosts.get(self._kind) is self:
            del _hosts[self._kind]

    def _end_without(self, reason: str) -> None:
        """Leave the workers to the program: what would be started is no host process."""
        with _lock:
            self._give_up()
            workers = list(self._workers.values())
            self._workers.clear()
            self._forget()
        if workers:
            say_once(reason)
        for worker in workers:
            worker.begin_here()

    def _survives(self, problem: str, pause: float) -> bool:
        """Wait before the process is started again; false where nobody needs it any more."""
        with _lock:
            over = self._give_up()
            workers = list(self._workers.values())
            if not workers:
                self._forget()
        if workers and not self._died:
            self._died = True
            text = "%s: %s: run %s goes on, and it is started again"
            logger.warning(text, self.name, problem, workers[0].info.run_name)
        for worker in (*over, *workers):
            worker.fail(problem)
        if not workers:
            return False
        until = time.monotonic() + pause
        with suppress(Empty):  # a run that ends does not wait for the next try
            while (left := until - time.monotonic()) > 0:
                if isinstance(self._mailbox.get(timeout=left), End):
                    break
        return True


def _host_for(worker: HostedWorker) -> Host | None:
    environ = absolute_environ(os.environ, worker.info.working_directory)
    environ = {name: value for name, value in environ.items() if name not in _UNREAD}
    kind = (kind_of(worker.name, worker.open.options), program(), frozenset(environ.items()))
    with _lock:
        host = _hosts.get(kind)
        if host is None:
            for other in _hosts.values():
                if other.name == kind[0]:
                    other.retire()
            host = Host(kind)
            try:
                host.start()
            except RuntimeError as exc:
                worker.fail(describe(exc))
                return None
            _hosts[kind] = host
        host.add(worker)
    return host


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _inherited.extend(_hosts.values())
    for host in _hosts.values():
        host.leave()
    _hosts.clear()


after_in_child(_after_fork)
