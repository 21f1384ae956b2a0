"""Trackers at arm's length: one that hangs, fails or comes alive late harms nobody."""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
import pytest

from keisei import AsyncSessionManager
from keisei.run.status import FinalStatus
from keisei.testing import MemoryRun, MemoryTracker
from keisei.trackers.base import RunInfo, Tracker, TrackerRun
from tests.conftest import TWO_BACKENDS, MakeConfig
from tests.support.session_files import record_of


@dataclass
class StuckRun(MemoryRun):
    """A run whose end hangs until the test releases it."""

    gate: threading.Event = field(default_factory=threading.Event)

    def finish(self, status: FinalStatus) -> None:
        """Hang, then end."""
        self.gate.wait(60)
        super().finish(status)


@dataclass
class StuckTracker(MemoryTracker):
    """A tracker whose start (or whose runs' end) hangs until the test releases it."""

    stuck_in: str = "start"
    gate: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def start(self, run: RunInfo) -> MemoryRun:
        """Hang, then start."""
        tracker = self
        self.asked.set()

        @dataclass
        class Noticed(MemoryRun):
            """Tells the test when it has been closed."""

            directory: str | None = "/where/it/keeps/things"

            def finish(self, status: FinalStatus) -> None:
                """Note the end, hanging first where asked to."""
                if tracker.stuck_in == "finish":
                    tracker.gate.wait(60)
                super().finish(status)
                tracker.closed.set()

        if self.stuck_in == "start":
            self.gate.wait(60)
        started = Noticed(run)
        self.runs.append(started)
        return started


async def started(make_config: MakeConfig, **sections: Any) -> AsyncSessionManager[Any]:
    """Give a session with directories."""
    session = AsyncSessionManager(make_config(**sections))
    await session.setup_directories()
    return session


async def test_a_tracker_is_told_of_the_run_and_its_end(make_config: MakeConfig) -> None:
    """It gets id, name, attempt, directory and config, and one end."""
    tracker: Tracker = (memory := MemoryTracker())
    session = await started(make_config)
    assert await session.setup_remote_logging(tracker) is True
    assert await session.setup_remote_logging(tracker) is True
    (run,) = memory.runs
    typed: TrackerRun = run
    assert typed.run_id == session.session_id == run.info.session_id
    assert (run.info.run_name, run.info.attempt) == (session.run_name, 1)
    assert run.info.directory == session.run_artifact_dir
    assert record_of(session)["trackers"]["memory"]["state"] == "live"
    await session.finalize_session("cancelled")
    assert run.ends == ["cancelled"]
    assert record_of(session)["trackers"]["memory"]["state"] == "finished"


@pytest.mark.requirement("WB-4", "WB-8")
async def test_a_start_that_hangs_is_left_and_its_late_run_closed(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The session goes on at the deadline; a run that comes alive after its end is told of it."""
    tracker = StuckTracker(start_timeout=0.05)
    session = await started(make_config)
    assert await session.setup_remote_logging(tracker) is False
    assert caplog.text.count("memory did not start in time") == 1
    assert await session.finalize_session() == "completed"
    tracker.gate.set()
    assert await anyio.to_thread.run_sync(tracker.closed.wait, 60)
    assert tracker.runs[0].ends == ["completed"]
    assert record_of(session)["trackers"]["memory"]["state"] == "abandoned"


@pytest.mark.requirement("WB-8", "FIN-3")
async def test_the_end_does_not_wait_for_a_tracker_that_is_still_starting(
    make_config: MakeConfig,
) -> None:
    """Another task's end of the session stops the wait, and the late run is closed."""
    tracker = StuckTracker(start_timeout=30)
    session = await started(make_config)
    answers = []

    async def start() -> None:
        answers.append(await session.setup_remote_logging(tracker))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(start)
            assert await anyio.to_thread.run_sync(tracker.asked.wait, 60)
            await session.finalize_session("preempted")
    assert answers == [False]
    assert record_of(session)["status"] == "preempted"
    tracker.gate.set()
    assert await anyio.to_thread.run_sync(tracker.closed.wait, 60)


@pytest.mark.requirement("FIN-3")
@pytest.mark.parametrize("backend", ["object", "tensorboard", "wandb"])
async def test_no_tracker_starts_in_a_session_that_has_ended_meanwhile(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """The end comes while the tracker is being asked for: it is `False`, and nothing is left."""
    asked, go = threading.Event(), threading.Event()

    def look() -> str:
        asked.set()
        go.wait(60)
        return "/"

    monkeypatch.setattr("keisei.session.tracking.working_directory", look)
    tracker = StuckTracker(start_timeout=30)
    session = await started(make_config, wandb={"mode": "offline"})
    answers = []

    async def start() -> None:
        answers.append(
            await session.setup_remote_logging(tracker if backend == "object" else backend)
        )

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(start)
            assert await anyio.to_thread.run_sync(asked.wait, 60)
            group.start_soon(session.finalize_session, "preempted")
            await anyio.wait_all_tasks_blocked()  # the end has begun, and waits for the start
            go.set()
    assert answers == [False]
    assert not tracker.asked.is_set()
    assert record_of(session)["trackers"] == {}


@pytest.mark.requirement("FIN-1", "FIN-2")
async def test_an_end_that_hangs_is_abandoned_and_said(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The local truth is written first; one warning says where the tracker's files are."""
    tracker = StuckTracker(stuck_in="finish")
    session = await started(make_config, tracking={"finish_timeout": 0.3})
    await session.setup_remote_logging(tracker)
    ended = anyio.Event()

    async def end() -> None:
        await session.finalize_session()
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(end)
        with anyio.fail_after(60):
            while record_of(session)["status"] != "completed":
                await anyio.sleep(0)
        assert not ended.is_set()  # the network comes last
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "did not finish" in warnings[0]
    assert "/where/it/keeps/things" in warnings[0]
    assert record_of(session)["trackers"]["memory"]["state"] == "abandoned"
    tracker.gate.set()
    assert await anyio.to_thread.run_sync(tracker.closed.wait, 60)


@pytest.mark.requirement("FIN-1")
async def test_one_trackers_hang_does_not_keep_another_from_ending(
    make_config: MakeConfig,
) -> None:
    """All end at the same time under one deadline."""
    stuck, well = StuckTracker(name="stuck", stuck_in="finish"), MemoryTracker(name="well")
    session = await started(make_config, tracking={"finish_timeout": 0.3})
    await session.setup_remote_logging(stuck)
    await session.setup_remote_logging(well)
    await session.finalize_session("failed")
    assert well.runs[0].ends == ["failed"]
    states = {n: t["state"] for n, t in record_of(session)["trackers"].items()}
    assert states == {"stuck": "abandoned", "well": "finished"}
    stuck.gate.set()


class FailingTracker(MemoryTracker):
    """A tracker that raises wherever it can."""

    def start(self, run: RunInfo) -> MemoryRun:
        """Start a run whose end raises."""
        if self.name == "fails at start":
            raise OSError("https://user:canary@host is away; key is away-with-the-canary-key")

        class Failing(MemoryRun):
            """A run whose end raises."""

            def finish(self, status: FinalStatus) -> None:
                """Raise."""
                raise OSError("https://user:canary@host is away; key is away-with-the-canary-key")

        return Failing(run)


@pytest.mark.requirement("FIN-1")
@pytest.mark.parametrize("name", ["fails at start", "fails at finish"])
async def test_a_tracker_that_raises_is_one_warning_without_secrets(
    make_config: MakeConfig,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """No failure of a tracker reaches the training, and no key of the environment the log."""
    monkeypatch.setenv("WANDB_API_KEY", "is away-with-the-canary-key")
    session = await started(make_config)
    answer = await session.setup_remote_logging(FailingTracker(name=name))
    assert answer is (name == "fails at finish")
    assert await session.finalize_session() == "completed"
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert name in warnings[0]
    assert "is away" in warnings[0]
    assert "canary" not in warnings[0]


@pytest.mark.parametrize("anyio_backend", TWO_BACKENDS)
async def test_a_tracker_is_found_by_its_entry_point(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """An installed tracker starts by name with options; an unknown name lists the known ones."""
    session = await started(make_config)
    assert await session.setup_remote_logging("no-such") is False
    assert "no tracker is called 'no-such'" in caplog.text
    assert re.search("installed: .*wandb", caplog.text)
    assert await session.setup_remote_logging("wandb", mode="offline", project="p") is True
    await session.finalize_session()
    assert record_of(session)["trackers"]["wandb"]["state"] == "finished"


@dataclass
class Meeting(MemoryTracker):
    """Starts when all that are expected are starting, too."""

    others: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def start(self, run: RunInfo) -> MemoryRun:
        """Wait for the others; where they are not asked for meanwhile, this fails."""
        self.others.wait(30)
        return super().start(run)


async def test_those_that_are_added_at_the_same_time_start_side_by_side(
    make_config: MakeConfig,
) -> None:
    """The wait for one keeps no other from being asked for, so their timeouts do not add up."""
    barrier = threading.Barrier(3)
    answers: list[bool] = []
    async with AsyncSessionManager(make_config(), run_name="r") as session:

        async def add(name: str) -> None:
            tracker = Meeting(name=name, start_timeout=30.0, others=barrier)
            answers.append(await session.setup_remote_logging(tracker))

        async with anyio.create_task_group() as tasks:
            for name in ("one", "two", "three"):
                tasks.start_soon(add, name)
    assert answers == [True, True, True]
