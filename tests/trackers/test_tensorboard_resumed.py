"""TensorBoard's files of a resumed run: those of one that was never interrupted."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import (
    STORE_EVERYTHING_SIZE_GUIDANCE,
    EventAccumulator,
)

from keisei import SessionManager
from keisei.journal.reader import Row
from keisei.journal.records import Position
from keisei.trackers.base import Record, RunInfo
from keisei.trackers.tensorboard.tracker import TensorBoardRun, TensorBoardTracker
from tests.conftest import MakeConfig

SESSION = "01J" + "0" * 23
Series = dict[str, list[tuple[int, float]]]


def accumulator(directory: Path) -> EventAccumulator:
    """Return TensorBoard's own reader, as its server uses it."""
    return EventAccumulator(
        str(directory / "tensorboard"),
        size_guidance=STORE_EVERYTHING_SIZE_GUIDANCE,
        purge_orphaned_data=True,
    )


def shown(reader: EventAccumulator) -> Series:
    """Return steps and values by tag, of all that there is by now."""
    reader.Reload()
    found: Series = {}
    for tag in reader.Tags()["scalars"]:
        if points := [(event.step, event.value) for event in reader.Scalars(tag)]:
            found[tag] = points
    return found


def started(directory: Path, attempt: int) -> TensorBoardRun:
    """Start the tracker."""
    return TensorBoardTracker().start(RunInfo(SESSION, "r", attempt, str(directory), "{}"))


def rows(attempt: int, first: int, count: int) -> list[Record]:
    """Return rows on two axes: a step, and epochs that count much more slowly."""
    found: list[Record] = []
    for seq in range(first, first + count):
        moment = 1.7e9 + attempt * 1000 + seq
        if seq % 5 == 4:
            found.append(Row(seq, moment, seq // 5, attempt, {"epoch/loss": attempt + seq / 64}))
        else:
            found.append(Row(seq, moment, seq, attempt, {"loss": attempt + seq / 64}))
    return found


def series(records: list[Record]) -> Series:
    """Return what a reader has to show of rows."""
    found: Series = {}
    for row in records:
        assert isinstance(row, Row)
        assert row.step is not None
        for key, value in row.values.items():
            found.setdefault(key, []).append((row.step, float(value)))
    return found


def send(run: TensorBoardRun, records: list[Record]) -> None:
    """Send what it has not got, in batches of three."""
    held = run.position()
    left = [record for record in records if (record.attempt, record.seq) > held]
    for start in range(0, len(left), 3):
        run.send(left[start : start + 3])


@pytest.mark.requirement("CKPT-7")
def test_a_reader_that_has_shown_what_was_left_behind_drops_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On every axis, within attempts and over them, as one does that looks for the first time."""
    caplog.set_level(logging.ERROR, "tensorboard")  # it tells of each purge
    live = accumulator(tmp_path)
    run = started(tmp_path, 1)
    holds = rows(1, 0, 32)
    send(run, holds)
    assert shown(live) == series(holds)
    for attempt, cut in ((2, 13), (2, 20), (3, 7)):
        if attempt == 3:
            run.finish("preempted")
            run = started(tmp_path, 3)
        after = Position(holds[cut].attempt, holds[cut].seq)
        assert run.rewind(after)
        assert run.position() <= after
        at = len(rows(2, 0, 20)) if (attempt, cut) == (2, 20) else 0
        holds = [*holds[: cut + 1], *rows(attempt, at, 17)]
        send(run, holds)
        assert shown(live) == shown(accumulator(tmp_path)) == series(holds)
    run.finish("completed")
    assert shown(live) == series(holds)


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "rename", "ftruncate"])
@pytest.mark.parametrize("number", range(5))
def test_it_goes_back_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int
) -> None:
    """Whichever operation fails, what it then says that it holds is what it shows."""
    run = started(tmp_path, 1)
    first, second = rows(1, 0, 20), rows(2, 0, 9)
    send(run, first)
    run = started(tmp_path, 2)
    send(run, second)
    real, calls = getattr(os, operation), 0

    def faulty(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > number:
            raise OSError(errno.EIO, "faulty")
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, operation, faulty)
        with suppress(OSError):
            run.rewind(Position(1, 9))
    run = started(tmp_path, 2)  # as after a kill
    assert run.position() in ((1, 8), (2, 8))
    if run.position() == (2, 8):
        assert shown(accumulator(tmp_path)) == series([*first, *second])
        run.rewind(Position(1, 9))
    assert shown(accumulator(tmp_path)) == series(first[:9])
    holds = [*first[:10], *rows(2, 9, 9)]
    send(run, holds)
    run.finish("completed")
    assert shown(accumulator(tmp_path)) == series(holds)
    run = started(tmp_path, 3)
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    run.finish("completed")


@pytest.mark.requirement("CKPT-7")
def test_a_session_that_resumes_at_a_step(make_config: MakeConfig, tmp_path: Path) -> None:
    """Epochs are cut where the step was, whatever their own numbers."""
    pytest.importorskip("tensorboard")
    for first, last in ((0, 20), (12, 30), (25, 40)):
        with SessionManager(make_config(), run_name="r") as session:
            session.setup_remote_logging(TensorBoardTracker())
            if first:
                session.resume_at(first - 1)
            for step in range(first, last):
                session.log_metrics({"loss": float(step)}, step=step)
                if step % 4 == 3:
                    session.log_metrics({"epoch/loss": float(step)}, step=step // 4)
    wanted = {
        "loss": [(step, float(step)) for step in range(40)],
        "epoch/loss": [(step // 4, float(step)) for step in range(3, 40, 4)],
    }
    assert shown(accumulator(tmp_path / "runs" / "r")) == wanted
