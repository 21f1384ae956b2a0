"""The lanes of all the trackers of one session."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import anyio

from keisei._log import logger
from keisei.errors import quoted
from keisei.run.session_file import TrackerRecord
from keisei.run.status import FinalStatus
from keisei.trackers.base import RunInfo, Tracker, TrackerRun
from keisei.trackers.host.client import ApartTracker
from keisei.trackers.loading import find_factory, make_tracker
from keisei.trackers.worker import Lane, Start

LOAD_TIMEOUT = 30.0


class Trackers:
    """The trackers of one session, each in a lane of its own.

    Args:
        run_name: the run's name, for messages.
        logged: tells how many records this attempt has logged.
    """

    def __init__(self, run_name: str, logged: Callable[[], int] = lambda: 0) -> None:
        self.run_name = run_name
        self.lanes: dict[str, Lane] = {}
        self._logged = logged

    def open(
        self,
        name: str,
        info: RunInfo,
        start: Start,
        *,
        options: dict[str, object] | None = None,
        on_live: Callable[[TrackerRun], object] = lambda run: None,
        retry: bool = True,
    ) -> Lane:
        """Begin a tracker's lane; see `Lane` for the arguments."""
        lane = self.lanes[name] = Lane(
            name, info, start, options=options, logged=self._logged, on_live=on_live, retry=retry
        )
        lane.begin()
        return lane

    async def started(self, lane: Lane) -> bool:
        """Wait for a lane's first start, within its deadline; that it passed is one warning.

        Returns:
            Whether the tracker tracks the run.
        """
        with anyio.move_on_after(LOAD_TIMEOUT):
            await lane.made.wait()
        if lane.made.is_set():
            with anyio.move_on_after(lane.start_timeout):
                await lane.attempted.wait()
        if not lane.attempted.is_set():
            logger.warning(
                "%s did not start in time: run %s goes on, and what is logged is kept for it. Its "
                "server may be slow or away; give it longer, or use an offline mode.",
                lane.name,
                self.run_name,
            )
        return lane.live

    def records(self) -> dict[str, TrackerRecord]:
        """Give what is known of each tracker by now."""
        return {name: lane.record() for name, lane in self.lanes.items()}

    def wake(self) -> None:
        """Tell all lanes that there may be more to send; never waits."""
        for lane in list(self.lanes.values()):
            lane.wake()

    def stop_starting(self) -> None:
        """Let nobody wait any longer for a tracker that is still starting."""
        for lane in self.lanes.values():
            lane.made.set()
            lane.attempted.set()

    async def finish(self, status: FinalStatus, timeout: float) -> None:
        """End all trackers at the same time; what does not end is abandoned.

        Args:
            status: how the run ended.
            timeout: the longest that all of it takes, in seconds.
        """
        deadline = anyio.current_time() + timeout
        for lane in self.lanes.values():
            lane.end(status, timeout - min(2.0, timeout / 4))
        for lane in self.lanes.values():
            # One that never came, and has missed nothing, is not waited for.
            if lane.live or lane.behind:
                with anyio.move_on_at(deadline):
                    await lane.done.wait()
            if not lane.done.is_set():
                lane.abandon()
            self._tell(lane, timeout)

    def _tell(self, lane: Lane, timeout: float) -> None:
        """Say in one warning what has become of a tracker that did not end well."""
        run, problem, behind = lane.run, lane.problem, lane.behind
        if not lane.done.is_set() and (run is not None or behind):
            problem = f"did not {'start' if run is None else 'finish'} within {timeout:.1f} s"
            problem += ": the run is abandoned there"
        elif problem is None or (run is None and not (behind and lane.kept)):
            return
        elif lane.record().state == "abandoned":
            problem += ": the run is abandoned there"
        else:
            problem = f"has ended, but not well ({problem})"
        if behind and lane.kept:
            problem += f", and {behind:,} rows and events wait for it (`keisei sync`)"
        if run is not None and run.directory:
            problem += f"; its local files are in {quoted(run.directory, 300)}"
        logger.warning("%s %s", lane.name, problem)


def starting(backend: str | Tracker, options: dict[str, object], info: RunInfo) -> Start:
    """Give what starts a tracker in its lane.

    Args:
        backend: the tracker, or the name of an installed one.
        options: what a named one is made with.
        info: what it is told of the run.
    """
    return partial(_start, backend, options, info)


def _start(
    backend: str | Tracker, options: dict[str, object], info: RunInfo, lane: Lane
) -> TrackerRun:
    tracker = _load(backend, options) if isinstance(backend, str) else backend
    if isinstance(tracker, ApartTracker):
        lane.kill = tracker.kill
    lane.ready(tracker.start_timeout)
    try:
        return tracker.start(info)
    except BaseException:
        if isinstance(tracker, ApartTracker):
            tracker.end(0.0)
        raise


def _load(name: str, options: dict[str, object]) -> Tracker:
    """Make a named tracker, in a process of its own if it wants one."""
    if getattr(find_factory(name), "apart", False) and sys.executable:
        return ApartTracker(name, options)
    return make_tracker(name, options)
