"""Start and finish trackers at arm's length: on daemon threads, under deadlines."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast

import anyio

from keisei._io.offload import Offloaded, offload
from keisei.errors import TrackerError, quoted
from keisei.log import logger
from keisei.redaction import clean
from keisei.run.ownership import TrackerRecord
from keisei.run.state import FinalStatus
from keisei.trackers.base import RunInfo, Tracker, TrackerFactory, TrackerRun

RunT = TypeVar("RunT", bound=TrackerRun)

LOAD_TIMEOUT = 30.0


class Trackers:
    """The trackers of one session: each one's run, and what is recorded of it.

    Args:
        run_name: the run's name, for messages.
    """

    def __init__(self, run_name: str) -> None:
        self.run_name = run_name
        self.runs: dict[str, TrackerRun] = {}
        self.records: dict[str, TrackerRecord] = {}
        self._starting: anyio.CancelScope | None = None

    async def start(self, name: str, start: Callable[[], Awaitable[TrackerRun | None]]) -> bool:
        """Start a tracker; its failure is one warning, and never raises.

        Args:
            name: the tracker's name.
            start: starts it within a deadline of its own; gives ``None`` where it is disabled.

        Returns:
            Whether the tracker tracks the run.
        """
        try:
            with anyio.CancelScope() as self._starting:
                run = await start()
                if run is not None:
                    self.records[name] = TrackerRecord(
                        run_id=run.run_id,
                        upload_as=run.upload_as,
                        url=clean(run.url),
                        mode=run.mode,
                        directory=run.directory,
                    )
                    self.runs[name] = run
        except TimeoutError:
            logger.warning(
                "%s did not start in time: run %s goes on without it. Its server may be slow or "
                "away; give it longer, or use an offline mode.",
                name,
                self.run_name,
            )
        except Exception as exc:  # noqa: BLE001 - foreign code: no tracker may stop the training
            problem = describe(exc)
            logger.warning(
                "%s did not start (%s): run %s goes on without it.", name, problem, self.run_name
            )
        return name in self.runs

    def stop_starting(self) -> None:
        """Let nobody wait any longer for a tracker that is still starting."""
        if self._starting is not None:
            self._starting.cancel()

    async def finish(self, status: FinalStatus, timeout: float) -> None:
        """End the runs of all trackers at the same time; what does not end is abandoned.

        Args:
            status: how the run ended.
            timeout: the longest that all of it takes, in seconds.
        """
        # All of them begin now, and no task of ours is needed that somebody could cancel.
        begun = {
            name: Offloaded(partial(run.finish, status), None, f"keisei-{name}-finish")
            for name, run in self.runs.items()
        }
        deadline = anyio.current_time() + timeout
        for name, call in begun.items():
            ended = await _finished(name, self.runs[name], call, timeout, deadline)
            state = "finished" if ended else "abandoned"
            self.records[name] = self.records[name].model_copy(update={"state": state})


async def start(backend: str | Tracker, options: dict[str, Any], run: RunInfo) -> TrackerRun:
    """Start a tracker's run within the tracker's own deadline.

    Args:
        backend: the tracker, or the name of an installed one.
        options: what a named one is made with.
        run: what it is told of the run.

    Raises:
        TrackerError: no installed package offers it.
        TimeoutError: it did not start in time. What it raises is raised as it is.
    """
    tracker = await load_tracker(backend, options) if isinstance(backend, str) else backend
    return await start_within(tracker.start_timeout, partial(tracker.start, run), tracker.name)


async def start_within(timeout: float, start: Callable[[], RunT], name: str) -> RunT:
    """Start a tracker's run within a deadline; one that comes alive later is closed at once.

    Args:
        timeout: the longest wait, in seconds.
        start: the blocking call that gives the run.
        name: the tracker's name, for its thread.

    Raises:
        TimeoutError: the deadline passed. What the tracker raises is raised as it is.
    """
    return await offload(start, timeout=timeout, on_late=_close, name=f"keisei-{name}-start")


def _close(late: TrackerRun) -> None:
    """Close a run that came alive when nobody waited for it any more: it never tracked a thing."""
    with suppress(Exception):
        late.finish("failed")


async def _finished(
    name: str, run: TrackerRun, call: Offloaded[None], timeout: float, deadline: float
) -> bool:
    try:
        await call.result(max(0.0, deadline - anyio.current_time()))
    except TimeoutError:
        problem = f"did not finish within {timeout:.1f} s"
    except Exception as exc:  # noqa: BLE001 - foreign code: no tracker may harm the end
        problem = f"failed to finish ({describe(exc)})"
    else:
        return True
    kept = f"; its local files are in {quoted(run.directory, 300)}" if run.directory else ""
    logger.warning("%s %s: the run is abandoned there%s", name, problem, kept)
    return False


def describe(exc: BaseException) -> str:
    """Describe an error in one line, secrets hidden."""
    text = str(exc)
    return f"{type(exc).__name__}: {quoted(text, 300)[1:-1]}" if text else type(exc).__name__


async def load_tracker(name: str, options: dict[str, Any]) -> Tracker:
    """Make the tracker that an entry point of the group `keisei.trackers` names.

    Finding and importing it blocks, and so is done at arm's length, too.

    Args:
        name: the entry point's name, such as ``"wandb"``.
        options: what its factory is called with.

    Raises:
        TrackerError: no installed package offers it.
        TimeoutError: it did not load within 30 s.
    """
    return await offload(lambda: _load(name, options), timeout=LOAD_TIMEOUT, name="keisei-load")


def _load(name: str, options: dict[str, Any]) -> Tracker:
    found = importlib.metadata.entry_points(group="keisei.trackers")
    for entry_point in found:
        if entry_point.name == name:
            return cast(TrackerFactory, entry_point.load())(**options)
    known = ", ".join(sorted({entry_point.name for entry_point in found})) or "none"
    raise TrackerError(f"no tracker is called {quoted(name)}; installed: {known}")
