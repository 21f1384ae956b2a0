"""What a run logs reaches each tracker once and in order, whatever happens to it or to others."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import pytest

from keisei import AsyncSessionManager, SessionManager
from keisei.journal.reader import read_run
from keisei.testing import MemoryRun, MemoryTracker, check_tracker
from keisei.trackers.base import Position, Record, RunInfo
from tests.conftest import TWO_BACKENDS, MakeConfig
from tests.support.line_tracker import LineRun, LineTracker, lines_of, series_of
from tests.support.session_files import record_of
from tests.support.storms import repetitions


@dataclass
class Flaky(LineTracker):
    """Its runs fail before, in the middle of, and after taking what they are sent."""

    chance: random.Random = field(default_factory=lambda: random.Random(7))
    outages: int = 0

    def start(self, run: RunInfo) -> LineRun:
        """Fail at times, else open the run's file."""
        self._perhaps_fail(0.3)
        return FlakyRun(run, self)

    def _perhaps_fail(self, share: float) -> None:
        if self.chance.random() < share:
            self.outages += 1
            raise ConnectionError("the server is away")


class FlakyRun(LineRun):
    """Fails as its tracker's chance says."""

    def __init__(self, info: RunInfo, tracker: Flaky) -> None:
        super().__init__(info)
        self.tracker = tracker

    def send(self, records: Sequence[Record]) -> None:
        """Fail before it, half-way or after it, or not at all."""
        self.tracker._perhaps_fail(0.15)
        half = self.tracker.chance.randrange(len(records) + 1)
        super().send(records[:half])
        self.tracker._perhaps_fail(0.15)
        super().send(records[half:])
        self.tracker._perhaps_fail(0.15)

    def position(self) -> Position | None:
        """Fail at times."""
        self.tracker._perhaps_fail(0.1)
        return super().position()


def journal_of(directory: str) -> list[tuple[int, int]]:
    """Give attempt and number of everything that a run has logged, in order."""
    run = read_run(directory)
    rows = [(row.attempt, row.seq) for row in run.rows(include_superseded=True)]
    return sorted([*rows, *((event.attempt, event.seq) for event in run.events())])


def held(directory: str) -> list[tuple[object, object]]:
    """Give attempt and number of everything that the tracker has, in its order."""
    return [(line[0], line[1]) for line in lines_of(directory)]


@pytest.mark.parametrize("outages", [20, pytest.param(repetitions(200), marks=pytest.mark.storm)])
def test_after_outages_every_row_is_there_once_and_in_order(
    make_config: MakeConfig, outages: int
) -> None:
    """Outages at random calls, over resumed attempts: the tracker equals the journal."""
    tracker = Flaky()
    step = attempts = 0
    while tracker.outages < outages:
        attempts += 1
        with SessionManager(make_config(journal={"max_delay": 0.0}), run_name="r") as session:
            session.setup_remote_logging(tracker)
            for _ in range(40):
                for _ in range(tracker.chance.randrange(30)):
                    session.log_metrics({"loss": 1 / (step + 1)}, step=step)
                    step += 1
                session.log_event("epoch", {"step": step})
                session.flush()
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging(LineTracker())
    directory = session.run_artifact_dir
    logged = journal_of(directory)
    print(
        f"{tracker.outages} outages, {attempts} attempts, {len(logged)} rows and events: none",
        end="",
    )
    print(" lost, none twice" if held(directory) == logged else " WRONG")
    assert held(directory) == logged
    assert [line[2] for line in lines_of(directory) if len(line) == 4] == list(range(step))


class Naive(MemoryTracker):
    """Keeps all in one list over its runs, and cannot tell what it holds."""

    def start(self, run: RunInfo) -> MemoryRun:
        """Go on with the same list."""
        started = NaiveRun(run, self.runs[0].records if self.runs else [])
        self.runs.append(started)
        return started


class NaiveRun(MemoryRun):
    """Cannot tell what it holds."""

    def position(self) -> None:
        """Tell nothing."""


async def test_the_stored_place_is_enough_for_a_tracker_that_cannot_tell(
    make_config: MakeConfig,
) -> None:
    """Resumed, and after an outage that took nothing, it goes on where it was."""
    tracker = Naive()
    for attempt in range(3):
        async with AsyncSessionManager(make_config(), run_name="r") as session:
            await session.setup_remote_logging(tracker)
            for step in range(10):
                session.log_metrics({"loss": float(step)}, step=attempt * 10 + step)
    records = tracker.runs[0].records
    logged = await anyio.to_thread.run_sync(journal_of, session.run_artifact_dir)
    assert [(record.attempt, record.seq) for record in records] == logged
    assert len(records) == 30


async def test_a_tracker_that_comes_late_gets_what_was_logged_before(
    make_config: MakeConfig,
) -> None:
    """Earlier attempts and the rows before its start are sent first, in order."""
    for _ in range(2):
        async with AsyncSessionManager(make_config(), run_name="r") as session:
            session.log_metrics({"loss": 1.0}, step=1)
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        session.log_metrics({"loss": 2.0}, step=2)
        tracker = MemoryTracker()
        assert await session.setup_remote_logging(tracker) is True
        session.log_metrics({"loss": 3.0}, step=3)
    (run,) = tracker.runs
    assert [(r.attempt, r.seq) for r in run.records] == [(1, 0), (2, 0), (3, 0), (3, 1)]
    assert run.ends == ["completed"]


@dataclass
class Gated(MemoryTracker):
    """Hangs in one of its calls until the test opens the gate."""

    hangs_in: str = "send"
    gate: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)

    def start(self, run: RunInfo) -> MemoryRun:
        """Start, hanging where asked to."""
        self.pass_gate("start")
        started = GatedRun(run)
        started.tracker = self
        self.runs.append(started)
        return started

    def pass_gate(self, call: str) -> None:
        """Wait here, if this is the call."""
        if call == self.hangs_in:
            self.reached.set()
            self.gate.wait(60)


class GatedRun(MemoryRun):
    """A run of it."""

    tracker: Gated

    def send(self, records: Sequence[Record]) -> None:
        """Take them, hanging first where asked to."""
        self.tracker.pass_gate("send")
        super().send(records)


async def reached(tracker: Gated) -> None:
    """Wait until the tracker hangs."""
    assert await anyio.to_thread.run_sync(tracker.reached.wait, 60)


async def test_one_that_hangs_holds_neither_the_session_nor_the_others(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The other gets all; the end is in time, and says what waits for the one that hangs."""
    stuck, well = Gated(name="stuck"), MemoryTracker(name="well")
    config = make_config(tracking={"finish_timeout": 0.5}, journal={"max_delay": 0.01})
    with anyio.fail_after(60):
        async with AsyncSessionManager(config) as session:
            await session.setup_remote_logging(stuck)
            await session.setup_remote_logging(well)
            session.log_metrics({"loss": 0.0}, step=0)
            await reached(stuck)
            for step in range(1, 2000):
                session.log_metrics({"loss": 1.0}, step=step)
    assert len(well.runs[0].records) == 2000
    known = record_of(session)["trackers"]
    assert (known["well"]["state"], known["well"]["behind"]) == ("finished", 0)
    assert (known["stuck"]["state"], known["stuck"]["behind"]) == ("abandoned", 2000)
    assert "2,000 rows and events wait for it" in caplog.text
    stuck.gate.set()
    with anyio.fail_after(60):
        while not stuck.runs[0].ends:
            await anyio.sleep(0.01)
    assert stuck.runs[0].ends == ["completed"]  # it came back, and was told the truth


async def test_the_summary_tells_how_far_each_tracker_is(make_config: MakeConfig) -> None:
    """Behind by what it has not got, broken with the reason, live again when it is back."""
    slow = Gated(name="slow")
    ill = Ill()
    async with AsyncSessionManager(make_config(journal={"max_delay": 0.0})) as session:
        for tracker in (slow, ill):
            await session.setup_remote_logging(tracker)

        def states() -> dict[str, tuple[str, int, str | None]]:
            known = session.get_session_summary()["trackers"]
            return {n: (t["state"], t["behind"], t["problem"]) for n, t in known.items()}

        assert states() == {"slow": ("live", 0, None), "ill": ("live", 0, None)}
        session.log_metrics({"loss": 1.0})
        await reached(slow)
        for _ in range(9):
            session.log_metrics({"loss": 1.0})
        with anyio.fail_after(60):
            while states()["ill"][0] != "broken":
                await anyio.sleep(0.01)
        assert states()["slow"] == ("live", 10, None)
        assert states()["ill"] == ("broken", 10, "ConnectionError: the host is away")
        slow.gate.set()
        ill.well = True
        with anyio.fail_after(60):
            while states() != {"slow": ("live", 0, None), "ill": ("live", 0, None)}:
                await anyio.sleep(0.01)
        assert len(ill.runs[0].records) == 10


class Ill(MemoryTracker):
    """Refuses all rows until it is well."""

    well = False

    def __init__(self) -> None:
        super().__init__(name="ill")

    def start(self, run: RunInfo) -> MemoryRun:
        """Start a run that refuses."""
        tracker = self

        class Refusing(MemoryRun):
            def send(self, records: Sequence[Record]) -> None:
                """Refuse."""
                if not tracker.well:
                    raise ConnectionError("the host is away")
                super().send(records)

        started = Refusing(run)
        self.runs.append(started)
        return started


@pytest.mark.parametrize("anyio_backend", TWO_BACKENDS)
async def test_a_session_need_not_wait_for_a_tracker(make_config: MakeConfig) -> None:
    """With `tracking.wait` off rows are logged at once, and sent when it has started."""
    config = make_config(
        tracking={"wait": False, "trackers": ["no-such-tracker"]},
        logging={"wandb_enabled": True},
        wandb={"mode": "offline"},
    )
    async with AsyncSessionManager(config) as session:
        assert session.is_wandb_active in (True, False)  # known, and nobody has waited
        session.log_metrics({"loss": 1.0}, step=1)
        known = session.get_session_summary()["trackers"]
        assert set(known) == {"wandb", "no-such-tracker"}
        assert await session.setup_wandb() is True  # this waits
        assert session.is_wandb_active
    states = {name: known["state"] for name, known in record_of(session)["trackers"].items()}
    assert states == {"wandb": "finished", "no-such-tracker": "broken"}


async def test_what_does_not_start_is_said_though_nobody_waits(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """With `tracking.wait` off a failed start is one warning all the same."""
    config = make_config(tracking={"wait": False, "trackers": ["no-such-tracker"]})
    async with AsyncSessionManager(config) as session:
        session.log_metrics({"loss": 1.0}, step=1)
        with anyio.fail_after(60):
            while "no tracker is called" not in caplog.text:
                await anyio.sleep(0.01)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1  # no other one at the end: it waits for nothing


async def test_a_start_that_fails_is_tried_again(make_config: MakeConfig) -> None:
    """A server that is away when the training starts gets every row once it is there."""

    class Away(MemoryTracker):
        tries = 0

        def start(self, run: RunInfo) -> MemoryRun:
            """Be away for a while."""
            self.tries += 1
            if self.tries < 4:
                raise ConnectionRefusedError("nobody listens")
            return super().start(run)

    tracker = Away()
    async with AsyncSessionManager(make_config()) as session:
        assert await session.setup_remote_logging(tracker) is False
        session.log_metrics({"loss": 1.0}, step=1)
        with anyio.fail_after(60):
            while not tracker.runs:
                await anyio.sleep(0.01)
        session.log_metrics({"loss": 2.0}, step=2)
    assert [record.seq for record in tracker.runs[0].records] == [0, 1]
    assert tracker.runs[0].ends == ["completed"]


async def test_a_short_run_still_reaches_a_tracker_that_is_starting(
    make_config: MakeConfig,
) -> None:
    """The end waits, within its deadline, for one that has missed rows."""
    tracker = Gated(hangs_in="start", start_timeout=0.01)
    async with AsyncSessionManager(make_config()) as session:
        assert await session.setup_remote_logging(tracker) is False
        session.log_metrics({"loss": 1.0}, step=1)
        threading.Timer(0.05, tracker.gate.set).start()
    assert [record.seq for record in tracker.runs[0].records] == [0]
    assert tracker.runs[0].ends == ["completed"]


def test_a_tracker_from_the_docs_passes_the_check() -> None:
    """The check takes one that knows what it holds, and tells what one that cannot does wrong."""
    assert len(check_tracker(LineTracker, series_of)) == 9
    with pytest.raises(AssertionError, match="takes a record once"):
        check_tracker(ForgetfulTracker, series_of)


class ForgetfulTracker(LineTracker):
    """Cannot tell what it holds, and takes everything again."""

    def start(self, run: RunInfo) -> LineRun:
        """Open the run's file."""

        class Forgetful(LineRun):
            def position(self) -> None:
                """Tell nothing."""

        return Forgetful(run)


def test_ten_thousand_rows_do_not_fill_the_memory_of_one_that_hangs(
    make_config: MakeConfig,
) -> None:
    """What it has not got is in the journal, and nowhere else."""
    stuck = Gated()
    config = make_config(tracking={"finish_timeout": 0.2}, journal={"max_delay": 0.0})
    with SessionManager(config) as session:
        session.setup_remote_logging(stuck)
        session.log_metrics({"loss": 0.0})
        assert stuck.reached.wait(60)
        for _ in range(10_000):
            session.log_metrics({"loss": 1.0})
        session.flush()
        assert session.get_session_summary()["trackers"]["memory"]["behind"] == 10_001
    stuck.gate.set()
