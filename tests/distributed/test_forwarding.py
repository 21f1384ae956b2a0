"""What trackers get of a run's parts: nothing, all of it, or one merged row for each step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from keisei import SessionManager, SessionMember
from keisei.distributed.merging import PATIENCE, StepMerger
from keisei.journal.reader import read_run
from keisei.testing import MemoryTracker
from keisei.trackers.base import Row
from tests.conftest import MakeConfig


def tracked(make_config: MakeConfig, track: str) -> list[tuple[int | None, dict[str, Any]]]:
    """Log to a run with two members, and return the rows that its tracker got."""
    tracker = MemoryTracker()
    with SessionManager(make_config(distributed={"track": track}), run_name="r") as session:
        session.setup_remote_logging(tracker)
        with (
            SessionMember(session.handle(), role="a") as first,
            SessionMember(session.handle(), role="b") as second,
        ):
            for step in range(3):
                session.log_metrics({"loss": 1.0}, step)
                first.log_metrics({"loss": 3.0, "reward": float(step)}, step)
                second.log_metrics({"loss": 5.0}, step)
            first.log_metrics({"free": 1.0})
    (run,) = tracker.runs
    return [(one.step, one.values) for one in run.records if isinstance(one, Row)]


@pytest.mark.requirement("RANK-3")
def test_without_being_asked_trackers_get_the_owners_rows(make_config: MakeConfig) -> None:
    """The parts' rows stay on the disk."""
    assert tracked(make_config, "none") == [(step, {"loss": 1.0}) for step in range(3)]


@pytest.mark.requirement("RANK-3")
def test_all_rows_come_under_the_names_of_their_parts(make_config: MakeConfig) -> None:
    """Each row of a part once, in its order, and rows without a step too."""
    rows = tracked(make_config, "all")
    assert [row for row in rows if "loss" in row[1]] == [(s, {"loss": 1.0}) for s in range(3)]
    assert [row for row in rows if "a/loss" in row[1]] == [
        (step, {"a/loss": 3.0, "a/reward": float(step)}) for step in range(3)
    ]
    assert [row for row in rows if "b/loss" in row[1]] == [(s, {"b/loss": 5.0}) for s in range(3)]
    assert (None, {"a/free": 1.0}) in rows
    assert len(rows) == 10


@pytest.mark.requirement("RANK-3")
@pytest.mark.parametrize(("track", "value"), [("mean", 3.0), ("max", 5.0), ("sum", 9.0)])
def test_merged_rows_come_once_for_each_step(
    make_config: MakeConfig, track: str, value: float
) -> None:
    """The owner's own value counts too, and what only one part has is merged of that alone."""
    rows = tracked(make_config, track)
    assert [row for row in rows if "loss" in row[1]] == [(s, {"loss": 1.0}) for s in range(3)]
    merged: dict[str, list[tuple[int | None, float]]] = {}
    for step, values in rows:
        for key, one in values.items():
            merged.setdefault(key, []).append((step, one))
    assert merged[f"{track}/loss"] == [(step, value) for step in range(3)]
    assert merged[f"{track}/reward"] == [(step, float(step)) for step in range(3)]
    assert merged.keys() == {"loss", f"{track}/loss", f"{track}/reward"}


@pytest.mark.requirement("MON-1")
@pytest.mark.parametrize("track", ["all", "shared", "mean"])
def test_what_parts_use_is_no_training_metric(
    make_config: MakeConfig, tmp_path: Path, track: str
) -> None:
    """It comes under the name of its part, as a system row still, and is never merged."""
    tracker = MemoryTracker()
    config = make_config(distributed={"track": track}, monitoring={"track": True})
    with SessionManager(config, run_name="r") as session:
        session.setup_remote_logging(tracker)
        session.log_metrics({"system/cpu": 1.0})
        with SessionMember(session.handle(), role="a") as member:
            member.log_metrics({"system/cpu": 2.0})
            member.log_metrics({"system/cpu": 3.0}, 1)
            member.log_metrics({"loss": 4.0}, 1)
    sent = [one.values for one in tracker.runs[0].records if isinstance(one, Row)]
    measured = [one for one in sent if "loss" not in str(one)]
    others = [] if track == "mean" else [{"system/a/cpu": 2.0}, {"system/a/cpu": 3.0}]
    assert measured == [{"system/cpu": 1.0}, *others]
    assert [row.values for row in read_run(tmp_path / "runs" / "r").rows()] == [
        {"mean/loss": 4.0} if track == "mean" else {"a/loss": 4.0}
    ]


def test_readers_merge_what_the_parts_have_logged_and_not_the_merged_rows(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """What was logged for the trackers has names of its own."""
    tracked(make_config, "mean")
    run = read_run(tmp_path / "runs" / "r")
    assert run.columns("loss", reduce="sum") == ([0, 1, 2], [9.0] * 3)
    assert run.columns("mean/loss") == ([0, 1, 2], [3.0] * 3)


def test_a_track_that_there_is_not(make_config: MakeConfig) -> None:
    """The config's error says which there are."""
    with pytest.raises((ValidationError, ValueError), match="track"):
        make_config(distributed={"track": "median"})


def test_a_step_is_done_when_all_that_live_have_passed_it() -> None:
    """A slow part is waited for as long as it lives, and no longer."""
    merger = StepMerger("mean")
    merger.add("a", {"x": 1.0}, 0, now=0)
    merger.add("b", {"x": 3.0}, 0, now=0)
    merger.add("a", {"x": 2.0}, 1, now=0)
    assert merger.take({"a", "b"}, 0) == [(0, {"x": 2.0})]
    assert merger.take({"a", "b"}, 10 * PATIENCE) == []
    assert merger.take({"a"}, 0) == [(1, {"x": 2.0})]
    merger.add("b", {"x": 9.0}, 1, now=0)
    assert merger.take({"a", "b"}, 0, everything=True) == []


def test_a_part_that_may_never_log_a_metric_is_not_waited_for_long() -> None:
    """The owner logs no reward: its members' rewards come a few seconds later."""
    merger = StepMerger("sum")
    merger.add("a", {"x": 1.0}, 0, now=0)
    merger.add("a", {"x": 1.0}, None, now=0)
    assert merger.take({"a", None}, PATIENCE / 2) == []
    assert merger.take({"a", None}, PATIENCE) == [(0, {"x": 1.0})]


def test_a_run_that_goes_back_merges_its_steps_again() -> None:
    """After a resume within the attempt, what comes is news; and a NaN stays one."""
    merger = StepMerger("max")
    merger.add("a", {"x": 1.0}, 7, now=0)
    assert merger.take({"a"}, 0) == [(7, {"x": 1.0})]
    merger.reset()
    merger.add("a", {"x": math.nan}, 3, now=0)
    merger.add("b", {"x": 1.0}, 3, now=0)
    ((step, values),) = merger.take({"a", "b"}, 0)
    assert step == 3
    assert math.isnan(values["x"])


def test_steps_that_wait_are_bounded() -> None:
    """A part that hangs costs values of the trackers, and not the owner's memory."""
    merger = StepMerger("mean")
    merger.add("slow", {"x": 1.0}, 0, now=0)
    for step in range(20_000):
        merger.add("fast", {"x": 2.0}, step, now=0)
    assert len(merger.take({"slow", "fast"}, 0)) == 10_000
