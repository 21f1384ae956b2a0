"""The rows of a run in memory: the same as the journal's reader has, and read on as they come."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from keisei.dashboard.series import RunSeries, Stopped
from keisei.journal.reader import RunJournal, read_run
from keisei.journal.superseding import RESUME
from keisei.journal.writer import Journal
from tests.support.logged_runs import Log, line


def same(series: RunSeries, directory: Path, *keys: str) -> None:
    """Compare with what the journal's reader has."""
    reader = read_run(directory)
    for key in keys:
        steps, values = reader.columns(key)
        xs, ys = series.series(key, "step")
        assert sorted(zip(xs, ys, strict=True)) == sorted(zip(steps, values, strict=True)), key


def write(directory: Path, attempt: int, rows: int, first: int = 0, resume: object = None) -> None:
    """Write a journal of rows of two shapes."""
    with Journal(str(directory), attempt) as journal:
        if resume is not None:
            journal.log_event(RESUME, resume)
        for step in range(first, first + rows):
            values = {"loss": step / 3 + attempt, "count": step, "on": step % 2 == 0}
            journal.log_metrics(values, step)
            if step % 10 == 0:
                journal.log_metrics({"score": float(step)}, step)
                journal.flush()


def test_columns_are_those_of_the_reader(tmp_path: Path) -> None:
    """Floats, whole numbers and truths, rows of several shapes, in blocks of any size."""
    write(tmp_path, 1, 500)
    series = RunSeries(str(tmp_path))
    series.refresh()
    same(series, tmp_path, "loss", "count", "on", "score")
    assert (series.rows, series.share, series.last_step()) == (550, 1.0, 499)
    assert series.keys() == ["loss", "count", "on", "score"]


def test_what_is_added_is_read_on(tmp_path: Path) -> None:
    """Rows that come later are appended; nothing is read twice."""
    with Journal(str(tmp_path), 1) as journal:
        series = RunSeries(str(tmp_path))
        for step in range(50):
            journal.log_metrics({"loss": float(step)}, step)
            if step % 7 == 0:
                journal.log_event("note", {"step": step})
            journal.flush()
            before = series.version
            assert series.refresh() != before
        assert series.refresh() == series.refresh()
        same(series, tmp_path, "loss")
        assert [event.name for event in series.events] == ["note"] * 8


@pytest.mark.parametrize("resume", [{"attempt": 1, "seq": 43}, {"step": 20}, None])
def test_what_a_resume_leaves_behind_is_left_out(tmp_path: Path, resume: object) -> None:
    """A later attempt hides what it has gone back before, whether it says so or not."""
    write(tmp_path, 1, 100)
    series = RunSeries(str(tmp_path))
    series.refresh()
    write(tmp_path, 2, 50, 40, resume)
    series.refresh()
    same(series, tmp_path, "loss", "score")


def test_a_resume_within_an_attempt_is_followed(tmp_path: Path) -> None:
    """A run that goes back while it is looked at is read anew."""
    with Journal(str(tmp_path), 1) as journal:
        for step in range(30):
            journal.log_metrics({"loss": float(step)}, step)
        journal.flush()
        series = RunSeries(str(tmp_path))
        series.refresh()
        journal.log_event(RESUME, {"attempt": 1, "seq": 9})
        journal.log_metrics({"loss": -1.0}, 10)
        journal.flush()
        series.refresh()
        same(series, tmp_path, "loss")
        assert list(series.series("loss", "step")[1])[-2:] == [9.0, -1.0]


def test_rows_of_many_shapes_come_in_order(tmp_path: Path) -> None:
    """A metric of several shapes of rows, and steps that go back, are sorted by x."""
    with Journal(str(tmp_path), 1) as journal:
        for step in (5, 1, 3):
            journal.log_metrics({"loss": float(step)}, step)
            journal.log_metrics({"loss": float(step + 1), "other": 1.0}, step + 1)
        journal.log_metrics({"loss": math.nan})
    series = RunSeries(str(tmp_path))
    series.refresh()
    xs, ys = series.series("loss", "step")
    assert list(xs) == [1, 2, 3, 4, 4, 5, 6]
    assert list(ys)[:3] == [1, 2, 3]
    assert math.isnan(ys[3]), "a row without a step takes the one before it"
    xs, _ = series.series("loss", "time")
    assert list(xs) == sorted(xs)
    assert xs[0] == 0


def test_a_run_that_is_made_anew_under_its_name_is_read_anew(log: Log) -> None:
    """Another directory of the same name is another run; one that is gone is an error."""
    directory = log("again", line(range(10)))
    series = RunSeries(str(directory))
    series.refresh()
    shutil.rmtree(directory)
    with pytest.raises(FileNotFoundError):
        series.refresh()
    log("again", line(range(3)))
    series.refresh()
    assert series.rows == 3
    series.close()


def test_reading_is_given_up_where_nobody_waits(tmp_path: Path) -> None:
    """A server that ends does not wait for a large journal."""
    write(tmp_path, 1, 50)
    with pytest.raises(Stopped):
        RunSeries(str(tmp_path), stopping=lambda: True).refresh()


def test_a_part_has_its_own(tmp_path: Path) -> None:
    """A rank's rows are those of its own journals."""
    write(tmp_path, 1, 5)
    with Journal(str(tmp_path), 1, part="rank1") as journal:
        journal.log_metrics({"loss": 7.0}, 1)
    series = RunSeries(str(tmp_path), "rank1")
    series.refresh()
    assert list(series.series("loss", "step")[1]) == [7.0]
    assert RunJournal(str(tmp_path)).parts() == ["rank1"]
