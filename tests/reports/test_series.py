"""The series that reports draw: merged over attempts, smoothed, thinned without losing extremes."""

from __future__ import annotations

import math

import pytest

from keisei.journal.reader import read_run
from keisei.reports.series import Points, read_series
from tests.conftest import MakeConfig
from tests.support.logged_runs import Log, line, log_with


@pytest.fixture
def log(make_config: MakeConfig) -> Log:
    """A function that makes runs of the rows that it is given."""
    return log_with(make_config)


def test_attempts_are_one_series_and_what_was_done_again_is_drawn_once(log: Log) -> None:
    """A later attempt takes the place of what earlier ones had logged from its first step on."""
    run = log("r", line(range(10)), line(range(6, 12), 10.0))
    (series,) = read_series(read_run(run), ["loss"], "step", lambda rows: None).values()
    assert list(series.points.xs) == list(range(12))
    assert list(series.points.ys) == [*range(6), *(10.0 * step for step in range(6, 12))]


def test_a_row_without_a_step_stands_at_the_step_before_it(log: Log) -> None:
    """What comes before the first step has no place among the steps, which is said."""
    run = log("r", [({"a": 1.0}, None), ({"a": 2.0}, 7), ({"a": 3.0}, None), ({"a": 4.0}, 9)])
    (series,) = read_series(read_run(run), ["a"], "step", lambda rows: None).values()
    assert (list(series.points.xs), list(series.points.ys)) == ([7, 7, 9], [2, 3, 4])
    assert series.note == "1 without an x"
    (series,) = read_series(read_run(run), ["a"], "row", lambda rows: None).values()
    assert list(series.points.xs) == [0, 1, 2, 3]


def test_smoothing_is_a_mean_that_forgets_and_bears_gaps(log: Log) -> None:
    """A constant stays as it is from the first row on, and a NaN leaves no trace."""
    values = [2.0, 2.0, math.nan, 2.0, 4.0]
    run = log("r", [({"a": value}, step) for step, value in enumerate(values)])
    (series,) = read_series(read_run(run), ["a"], "step", lambda rows: None, weight=0.5).values()
    assert series.smooth is not None
    assert list(series.smooth.xs) == [0, 1, 3, 4]
    weights = [0.125, 0.25, 0.5, 1.0]
    mean = sum(w * v for w, v in zip(weights, [2, 2, 2, 4], strict=True)) / sum(weights)
    assert list(series.smooth.ys) == pytest.approx([2, 2, 2, mean])


def test_thinning_keeps_each_columns_extremes() -> None:
    """However many points: the single spike, up or down, is there, and few points are."""
    points = Points()
    points.xs.extend(map(float, range(100_000)))
    points.ys.extend([0.0] * 100_000)
    points.ys[12_345], points.ys[77_777] = 9.0, -9.0
    points.thin(100)
    assert len(points.xs) <= 400
    assert dict(zip(points.xs, points.ys, strict=True))[12_345] == 9.0
    assert dict(zip(points.xs, points.ys, strict=True))[77_777] == -9.0
    assert (points.xs[0], points.xs[-1]) == (0, 99_999)
    assert list(points.xs) == sorted(points.xs)


def test_thinning_as_rows_come_changes_no_extreme(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A series that is longer than what is held at once is drawn with all of its spikes."""
    from keisei.reports import series as module

    monkeypatch.setattr(module, "_BATCH", 100)
    monkeypatch.setattr(module, "_LIMIT", 1000)
    monkeypatch.setattr(module, "_COLUMNS", 100)
    run = log("r", [({"a": 9.0 if step == 777 else float(step % 2)}, step) for step in range(9000)])
    (series,) = read_series(read_run(run), ["a"], "step", lambda rows: None).values()
    assert series.rows == 9000
    assert len(series.points.xs) < 2000
    assert (777.0, 9.0) in list(zip(series.points.xs, series.points.ys, strict=True))
