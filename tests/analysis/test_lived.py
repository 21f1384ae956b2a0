"""The time of rows where somebody has set the wall clock meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from keisei import SessionManager
from keisei.analysis.lived import LivedTime, Mark
from keisei.analysis.reading import read_curves
from tests.conftest import MakeConfig

BEGUN = 1.7e9


def test_without_a_mark_it_is_the_wall_clock() -> None:
    """An attempt that says nothing of its time is taken as its rows have it."""
    lived = LivedTime(())
    assert [lived.at(1, BEGUN), lived.at(2, BEGUN + 5)] == [BEGUN, BEGUN + 5]


@pytest.mark.parametrize("set_by", [0.0, 3 * 86400.0, 40.0, -40.0, -86400.0])
def test_rows_have_the_time_that_was_lived(set_by: float) -> None:
    """A minute in which the clock was set is a minute, and what comes after it is exact."""
    after = BEGUN + set_by
    marks = [Mark(-1, BEGUN, 0.0), Mark(3, BEGUN + 60, 60.0), Mark(6, after + 120, 120.0)]
    lived = LivedTime(marks)
    assert (lived.at(1, BEGUN + 10), lived.at(2, BEGUN + 50)) == (10.0, 50.0)
    assert lived.at(4, BEGUN + 70) == 70.0
    assert 70.0 <= lived.at(5, after + 110) <= 120.0
    assert (lived.at(7, after + 130), lived.at(8, after + 150)) == (130.0, 150.0)


def test_after_the_last_mark_a_process_is_not_silent_for_days() -> None:
    """It says more often how long it has lived, where it was killed as well."""
    lived = LivedTime([Mark(-1, BEGUN, 0.0), Mark(1, BEGUN + 60, 60.0)])
    assert lived.at(2, BEGUN + 70) == 70.0
    assert lived.at(3, BEGUN + 3 * 86400) == 360.0
    assert lived.at(4, BEGUN + 80) == 360.0


@pytest.mark.parametrize("set_by", [3 * 86400.0, -3600.0])
def test_a_run_takes_no_longer_to_a_target_where_its_clock_is_set(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_by: float
) -> None:
    """Its curves have the time that it has lived."""
    monkeypatch.setenv("KEISEI_LOG_DIR", str(tmp_path))
    ahead = 0.0
    monkeypatch.setattr("keisei.journal.writer.time", lambda: time.time() + ahead)
    with SessionManager(make_config(monitoring={"phases": True}), run_name="r") as session:
        with session.phase("evaluation"):
            pass
        for step in range(4):
            ahead = set_by * (step // 2)
            session.log_metrics({"loss": 1.0}, step)
    times = read_curves(str(tmp_path / "r"), {"loss"}.__contains__)["loss"].times
    assert times == sorted(times)
    assert 0.0 <= times[-1] < 3000.0
