"""The workers of one session's trackers: opened, waited for, ended all at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio

from keisei._io.spawn import say_once, why_not
from keisei._log import logger
from keisei.errors import TrackerError, quoted
from keisei.run.session_file import TrackerRecord
from keisei.run.status import FinalStatus
from keisei.trackers.base import RunInfo, Tracker
from keisei.trackers.host.client import HostedWorker
from keisei.trackers.loading import kind_of, make_tracker
from keisei.trackers.pace import PACE
from keisei.trackers.places import absolute_options
from keisei.trackers.state import WorkerHandle
from keisei.trackers.worker import Worker

LOAD_TIMEOUT = 30.0  # seconds until a tracker is imported and made

HandleT = TypeVar("HandleT", bound=WorkerHandle)


class WorkerGroup:
    """The workers of one session.

    Args:
        linger: how long a host process may outlive the program or the session, in seconds.
        finish_timeout: the longest that the end of the session waits for a tracker, in seconds.
        logged: returns how many records this attempt has logged.
    """

    def __init__(self, linger: float, finish_timeout: float, logged: Callable[[], int]) -> None:
        self.workers: dict[str, WorkerHandle] = {}
        self._linger, self._finish_timeout, self._logged = linger, finish_timeout, logged
        self._own_timeouts: dict[str, float] = {}
        self._known_away: dict[str, Callable[[], bool]] = {}
        self._over = False
        self._finish_begun: float | None = None
        self._unfinished: list[tuple[str, WorkerHandle]] = []

    def open_named(
        self,
        name: str,
        info: RunInfo,
        options: dict[str, object],
        *,
        kept: dict[str, object] | None = None,
        start_by: float | None = None,
        finish_timeout: float | None = None,
        known_away: Callable[[], bool] | None = None,
    ) -> WorkerHandle:
        """Start the worker of a named tracker: in a host process, or here where there can be none.

        Args:
            name: the tracker's entry point.
            info: what the tracker is told of the run.
            options: what the tracker is made with.
            kept: what of them is stored in the cursor; without it, all.
            start_by: when the start has to be over, by the monotonic clock, in seconds.
            finish_timeout: in place of the group's, in seconds.
            known_away: returns whether somebody else has warned of what it cannot reach; that it
                only starts or ends slowly is no warning then.
        """
        if known_away is not None:
            self._known_away[name] = known_away
        try:
            options = absolute_options(kind_of(name, options), options, info.working_directory)
        except TrackerError as exc:
            return self.open_here(name, info, partial(_refuse, exc))
        kept = options if kept is None else kept
        if finish_timeout is not None:
            self._own_timeouts[name] = finish_timeout
        reason = why_not()
        if reason is None:
            hosted = HostedWorker(
                name, info, options, kept, self._logged, start_by=start_by, linger=self._linger
            )
            return self._begun(hosted)
        say_once(reason)
        return self.open_here(name, info, partial(make_tracker, name, options), kept, start_by)

    def open_here(
        self,
        name: str,
        info: RunInfo,
        make: Callable[[], Tracker],
        kept: dict[str, object] | None = None,
        start_by: float | None = None,
        finish_timeout: float | None = None,
    ) -> Worker:
        """Start a worker on a thread of the program.

        Args:
            name: the tracker's name.
            info: what the tracker is told of the run.
            make: makes the tracker, blocking.
            kept: what a named tracker was made with, for the cursor; ``None`` for one that only
                the program can make again.
            start_by: when the start has to be over, by the monotonic clock, in seconds.
            finish_timeout: in place of the group's, in seconds.
        """
        if finish_timeout is not None:
            self._own_timeouts[name] = finish_timeout
        return self._begun(
            Worker(
                name,
                info,
                make,
                options=kept,
                logged=self._logged,
                start_by=start_by,
                pace=PACE,
            )
        )

    def _begun(self, worker: HandleT) -> HandleT:
        if self._over:  # the session has ended while the tracker was asked for
            worker.update(worker.state._replace(attempted=True, done=True))
            return worker
        self.workers[worker.name] = worker
        worker.begin()
        return worker

    async def started(self, worker: WorkerHandle) -> bool:
        """Wait for a worker's first start, within its timeout; that it passed is one warning.

        The timeout counts from when the worker was asked for: those that start side by side are
        waited for one after the other, and together no longer than the slowest.

        Returns:
            Whether the tracker tracks the run.
        """
        with anyio.move_on_after(_left(worker.started_at + LOAD_TIMEOUT)):
            await worker.made.wait()
        if worker.made.is_set():
            with anyio.move_on_after(_left(worker.made_at + worker.state.start_timeout)):
                await worker.attempted.wait()
        if not worker.attempted.is_set():
            self.warn_late(worker)
        return worker.live

    def warn_late(self, worker: WorkerHandle) -> None:
        """Warn that a tracker has not started in time."""
        known = worker.state.record.problem
        why = f" ({known})" if known else ". Its server may be slow or away: give it longer, or use"
        why += "" if known else " an offline mode"
        text = "%s did not start in time: run %s goes on, and what is logged is kept for it%s"
        logger.warning(text, worker.name, worker.info.run_name, why)

    def records(self) -> dict[str, TrackerRecord]:
        """Return what is known of each tracker by now."""
        return {name: worker.record() for name, worker in self.workers.items()}

    def wake(self) -> None:
        """Note that the journal has grown; never waits."""
        for worker in list(self.workers.values()):
            worker.wake()

    def stop_waiting(self) -> None:
        """Release whoever waits for a tracker that is still starting; no other one is started."""
        self._over = True
        for worker in self.workers.values():
            worker.attempted.set()
            worker.made.set()

    def timeout_of(self, name: str) -> float:
        """Return how long the end of the session waits for a tracker, in seconds."""
        return self._own_timeouts.get(name, self._finish_timeout)

    async def finish(self, status: FinalStatus) -> None:
        """End all trackers at the same time, and wait for each within its own timeout.

        Called again after a cancellation, it goes on with the wait.

        Args:
            status: how the run ended.
        """
        if self._finish_begun is None:
            self._finish_begun = anyio.current_time()
            self._unfinished = list(self.workers.items())
            for name, worker in self._unfinished:
                worker.end(status, self.timeout_of(name))
        while self._unfinished:
            name, worker = self._unfinished[0]
            # One that cannot start is not waited for, nor one that starts and has missed nothing.
            starting = worker.state.record.state == "connecting"
            if worker.live or (starting and worker.behind):
                with anyio.move_on_at(self._finish_begun + self.timeout_of(name)):
                    await worker.done.wait()
            if not worker.done.is_set():
                worker.abandon()
            self._warn(worker, self.timeout_of(name))
            self._unfinished.pop(0)

    def _warn(self, worker: WorkerHandle, timeout: float) -> None:
        """Warn, once, of a tracker that did not end well."""
        record, behind, kept = worker.state.record, worker.behind, worker.state.kept
        problem, live, done = record.problem, worker.live, worker.done.is_set()
        hosted = isinstance(worker, HostedWorker) and worker.here is None
        if not done and (live or (behind and record.state == "connecting")):
            problem = f"did not {'finish' if live else 'start'} within {timeout:.1f} s"
            if hosted:
                problem += f": its process goes on for {self._linger:g} s at most"
            else:
                problem += ": the run is abandoned there"
        elif problem is None or (not live and not (behind and kept)):
            return
        elif record.state == "abandoned":
            problem += ": the run is abandoned there"
        else:
            problem = f"has ended, but not well ({problem})"
        if behind and kept:
            problem += f", and {behind:,} rows and events wait for it (`keisei sync`)"
        if live and record.directory:
            problem += f"; its local files are in {quoted(record.directory, 300)}"
        known_away = self._known_away.get(worker.name)
        # One that is only slow, as a busy machine lets it, delivers from its own process.
        slow = not done and record.problem is None and hosted
        aside = known_away is not None and (known_away() or slow)
        level = logging.INFO if aside else logging.WARNING
        logger.log(level, "%s %s", worker.name, problem)


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _refuse(error: TrackerError) -> Tracker:
    raise error
