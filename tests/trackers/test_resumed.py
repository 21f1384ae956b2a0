"""A tracker of a resumed run has what one of an uninterrupted run has."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei.journal.reader import read_run
from keisei.journal.records import Row
from keisei.journal.superseding import RESUME
from keisei.journal.writer import Journal
from keisei.testing import MemoryTracker
from keisei.trackers.base import Position, Record, RunInfo
from keisei.trackers.worker import Worker
from tests.conftest import MakeConfig
from tests.support.line_tracker import LineRun, LineTracker, lines_of, series_of


class RewindingRun(LineRun):
    """Drops lines; may be killed right after it, as a test says."""

    asked: list[Position]
    dies = False

    def rewind(self, after: Position) -> bool:
        """Keep the lines up to the position."""
        self.asked.append(after)
        self.file.seek(0)
        lines = [line for line in self.file if tuple(json.loads(line)[:2]) <= after]
        self.file.truncate(0)
        self.file.write(b"".join(lines))
        self.last = Position(*json.loads(lines[-1])[:2]) if lines else Position(1, -1)
        if self.dies:
            raise SystemExit("killed")
        return True


class Rewinding(LineTracker):
    """Its runs go back."""

    dies = False

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Position] = []
        self.sent: list[Record] = []

    def start(self, run: RunInfo) -> LineRun:
        """Start a run that goes back."""
        tracker = self

        class Run(RewindingRun):
            def send(self, records: Sequence[Record]) -> None:
                tracker.sent += records
                super().send(records)

        started = Run(run)
        started.asked, started.dies = self.asked, self.dies
        return started


def deliver(directory: Path, attempt: int, tracker: Any) -> Worker:
    """Send a run to a tracker, and end it."""
    info = RunInfo("01J" + "0" * 23, "r", attempt, str(directory), MEASURED)
    worker = Worker("lines", info, lambda: tracker, retry=False)
    worker.begin()
    worker.end("completed", 10.0)
    worker.join(20.0)
    return worker


def rows_held(directory: Path) -> list[tuple[int, int]]:
    """Return attempt and number of the rows that hold, by the journal."""
    return [(row.attempt, row.seq) for row in read_run(directory).rows()]


MEASURED = '{"monitoring": {"track": true}}'


def rows_of(directory: Path) -> list[tuple[object, object]]:
    """Return attempt and number of the rows that the tracker has, in its order."""
    return [(line[0], line[1]) for line in lines_of(str(directory)) if len(line) == 4]


def log(directory: Path, attempt: int, resume: Position | None, rows: int) -> None:
    """Write an attempt's journal."""
    with Journal(str(directory), attempt) as journal:
        if resume is not None:
            journal.log_event(RESUME, resume._asdict())
        for step in range(rows):
            journal.log_metrics({"loss": attempt + step / 8}, step)
            if step % 5 == 4:
                journal.log_event("checkpoint", {"step": step})


@pytest.mark.requirement("CKPT-7")
def test_a_tracker_goes_back_and_has_each_row_that_holds_once(tmp_path: Path) -> None:
    """Over attempts that go on from the one before, from an older one, from one left behind."""
    tracker = Rewinding()
    resumes = [None, Position(1, 700), Position(2, 300), Position(1, 100), Position(2, 200)]
    for attempt, resume in enumerate(resumes, 1):
        log(tmp_path, attempt, resume, 800)
        worker = deliver(tmp_path, attempt, tracker)
        assert rows_of(tmp_path) == rows_held(tmp_path)
        assert (worker.behind, worker.state.earlier) == (0, 0)
    assert tracker.asked == [*resumes[1:4], Position(1, 100)]


@pytest.mark.requirement("CKPT-7")
def test_what_is_superseded_before_it_was_sent_is_never_sent(tmp_path: Path) -> None:
    """A tracker that comes late gets what holds, and is not asked to drop anything."""
    for attempt, resume in enumerate([None, Position(1, 300), Position(2, 20)], 1):
        log(tmp_path, attempt, resume, 400)
    tracker = Rewinding()
    worker = deliver(tmp_path, 3, tracker)
    sent = [(one.attempt, one.seq) for one in tracker.sent if isinstance(one, Row)]
    assert sent == rows_held(tmp_path)
    assert tracker.asked == []
    assert (worker.behind, worker.state.earlier) == (0, 0)


@pytest.mark.requirement("CKPT-7")
def test_a_kill_after_the_tracker_went_back_costs_nothing(tmp_path: Path) -> None:
    """Before the cursor says so: the next worker goes on, and each row that holds is there once."""
    tracker = Rewinding()
    log(tmp_path, 1, None, 400)
    deliver(tmp_path, 1, tracker)
    log(tmp_path, 2, Position(1, 300), 400)
    tracker.dies = True
    deliver(tmp_path, 2, tracker)
    assert rows_of(tmp_path) != rows_held(tmp_path)
    tracker.dies = False
    deliver(tmp_path, 2, tracker)
    assert rows_of(tmp_path) == rows_held(tmp_path)


def test_nonsense_takes_no_tracker_back(tmp_path: Path) -> None:
    """An event of that name that says no position is one as any other."""
    with Journal(str(tmp_path), 1) as journal:
        nonsense: list[Any] = [[], "x", {"step": "3"}, {"attempt": 9, "seq": 1}, {"step": 7}]
        for said in nonsense:
            journal.log_metrics({"loss": 1.0}, 1)
            journal.log_event(RESUME, said)
    tracker = Rewinding()
    worker = deliver(tmp_path, 1, tracker)
    assert (len(tracker.sent), worker.behind, tracker.asked) == (10, 0, [])


def test_a_tracker_that_cannot_go_back_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It keeps what it has, and gets what follows; where it had nothing of it, nothing is said."""
    log(tmp_path, 1, None, 10)
    deliver(tmp_path, 1, LineTracker())
    log(tmp_path, 2, Position(1, 3), 10)
    with caplog.at_level(logging.WARNING, "keisei"):
        deliver(tmp_path, 2, LineTracker())
    assert [record.getMessage() for record in caplog.records] == [
        "lines cannot drop what run r has left behind by resuming: it keeps it"
    ]
    everything = read_run(tmp_path).rows(include_superseded=True)
    assert rows_of(tmp_path) == [(row.attempt, row.seq) for row in everything]
    caplog.clear()
    log(tmp_path, 3, Position(2, 13), 2)
    deliver(tmp_path, 3, LineTracker())
    assert not caplog.records


@pytest.mark.requirement("CKPT-7")
def test_a_session_that_goes_back_by_itself(make_config: MakeConfig, tmp_path: Path) -> None:
    """Within one attempt, live, the tracker has what a run that did not fail would have."""
    tracker, plain = Rewinding(), MemoryTracker()
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging(tracker)
        session.setup_remote_logging(plain)
        for step in range(600):
            session.log_metrics({"loss": float(step)}, step=step)
        for _ in range(3):
            session.flush()
            session.resume_at(299)
            for step in range(300, 900):
                session.log_metrics({"loss": float(step)}, step=step)
    run = tmp_path / "runs" / "r"
    assert rows_of(run) == rows_held(run)
    info: Any = plain.runs[0].info
    assert series_of(info)["loss"] == [(step, float(step)) for step in range(900)]
    kept = [record for record in plain.runs[0].records if isinstance(record, Row)]
    assert [row.step for row in kept] == list(range(900))


def measure(
    directory: Path, attempt: int, resume: Position | None, steps: int, measured: int
) -> None:
    """Write an attempt's journal: rows of the training, and what was measured behind them."""
    with Journal(str(directory), attempt) as journal:
        if resume is not None:
            journal.log_event(RESUME, resume._asdict())
        for step in range(steps):
            journal.log_metrics({"loss": 1.0 / (step + attempt)}, step)
        for number in range(measured):
            journal.log_metrics({"system/cpu": float(number), "system/memory": 1.0})


def held(directory: Path) -> list[tuple[int, int]]:
    return [(row.attempt, row.seq) for row in read_run(directory).rows(system=True)]


@pytest.mark.requirement("MON-1", "CKPT-7")
def test_a_resume_leaves_behind_the_training_and_not_what_was_measured(
    make_config: MakeConfig,
) -> None:
    """With a real checkpoint: its readers, and a tracker that comes then, have all measurements."""
    for attempt in (1, 2):
        tracker = MemoryTracker()
        with SessionManager(make_config(monitoring={"track": True}), run_name="r") as session:
            if attempt == 2:
                session.setup_remote_logging(tracker)
                session.restore_checkpoint(0)
            for step in range(3):
                session.log_metrics({"loss": float(step)}, step)
                session.log_metrics({"system/cpu": 10.0 * attempt + step})
                if step == 0 and attempt == 1:
                    session.save_checkpoint({"step": step}, step)
    run = read_run(session.run_artifact_dir)
    cpu = [10.0, 11.0, 12.0, 20.0, 21.0, 22.0]
    assert [row.step for row in run.rows()] == [0, 0, 1, 2]
    assert list(run.columns("system/cpu")[1]) == cpu
    assert [row.values["system/cpu"] for row in run.rows(system=True) if row.step is None] == cpu
    assert [x.superseded for x in run.rows(True, system=True) if x.step is None] == [False] * 6
    sent = [x for x in tracker.runs[0].records if isinstance(x, Row)]
    assert [x.values["system/cpu"] for x in sent if "system/cpu" in x.values] == cpu
    assert [x.values["loss"] for x in sent if "loss" in x.values] == [0.0, 0.0, 1.0, 2.0]


@pytest.mark.requirement("MON-1")
def test_no_tracker_goes_back_for_measurements_alone(tmp_path: Path) -> None:
    """The checkpoint of the last step is restored, and behind it only the machine was measured."""
    tracker = Rewinding()
    measure(tmp_path, 1, None, 10, 5)
    deliver(tmp_path, 1, tracker)
    measure(tmp_path, 2, Position(1, 9), 10, 5)
    deliver(tmp_path, 2, tracker)
    assert tracker.asked == []
    assert rows_of(tmp_path) == held(tmp_path)


def test_no_tracker_goes_back_for_measurements_of_this_attempt(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """A session that goes on from its last step has left nothing of the training behind."""
    tracker = Rewinding()
    with SessionManager(make_config(monitoring={"track": True}), run_name="r") as session:
        session.setup_remote_logging(tracker)
        session.log_metrics({"loss": 1.0}, step=1)
        session.log_metrics({"system/cpu": 1.0})
        session.flush()
        while session.get_session_summary()["trackers"]["lines"]["behind"]:
            time.sleep(0.01)
        session.resume_at(1)
        session.log_metrics({"loss": 0.5}, step=2)
    assert tracker.asked == []
    assert rows_of(tmp_path / "runs" / "r") == held(tmp_path / "runs" / "r")


def test_a_tracker_that_goes_back_has_each_measurement_once(tmp_path: Path) -> None:
    """Those of the time that was left behind come again, and what was trained then does not."""
    tracker = Rewinding()
    for attempt, resume in enumerate([None, Position(1, 4), Position(1, 2), Position(3, 5)], 1):
        measure(tmp_path, attempt, resume, 10, 5)
        deliver(tmp_path, attempt, tracker)
        assert rows_of(tmp_path) == held(tmp_path)
    assert tracker.asked


@pytest.mark.requirement("MON-1")
def test_measurements_stay_in_the_journal_unless_they_are_asked_for(
    make_config: MakeConfig,
) -> None:
    """A tracker gets all rows of the training, and comes to its end behind those of the machine."""
    tracker = MemoryTracker()
    with SessionManager(make_config(), run_name="r") as session:
        session.setup_remote_logging(tracker)
        for step in range(3):
            session.log_metrics({"loss": float(step)}, step)
            session.log_metrics({"system/cpu": 1.0})
    rows = [one for one in tracker.runs[0].records if isinstance(one, Row)]
    assert [row.values for row in rows] == [{"loss": 0.0}, {"loss": 1.0}, {"loss": 2.0}]
    (record,) = session.get_session_summary()["trackers"].values()
    assert (record["state"], record["behind"]) == ("finished", 0)
