"""Journals of a run's parts: each is read by itself, or all are merged by step."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

import pytest

from keisei._io.directories import OpenDirectory
from keisei.journal.attempt import AttemptReader, take_up
from keisei.journal.format import file_name
from keisei.journal.merging import reduced
from keisei.journal.reader import read_run
from keisei.journal.records import Position
from keisei.journal.superseding import RESUME
from keisei.journal.writer import Journal


def write(
    directory: Path, part: str | None, rows: list[tuple[int | None, float]], attempt: int = 1
) -> None:
    """Write a part's journal: steps, and values of the metric `loss`."""
    with Journal(str(directory), attempt, part=part) as journal:
        for step, value in rows:
            journal.log_metrics({"loss": value}, step)


def gone_on(directory: Path, part: str, attempt: int = 1) -> Journal:
    """Go on with a part's journal."""
    with OpenDirectory(str(directory)) as opened:
        left = take_up(opened, file_name(attempt, part))
    assert left is not None
    return Journal(str(directory), attempt, part=part, left=left)


@pytest.mark.requirement("RANK-3")
def test_parts_are_read_by_rank_by_name_and_merged(tmp_path: Path) -> None:
    """The owner's rows are what a run's rows are; others are asked for, or merged by step."""
    write(tmp_path, None, [(0, 1.0), (1, 3.0)])
    write(tmp_path, "rank1", [(0, 2.0), (1, 5.0), (2, 7.0)])
    write(tmp_path, "rank10", [(1, 1.0)])
    write(tmp_path, "rollout-2", [(0, 9.0), (None, 4.0)])
    run = read_run(tmp_path)
    assert run.attempts() == [1]
    assert run.parts() == ["rank1", "rank10", "rollout-2"]
    assert [row.values["loss"] for row in run.rows()] == [1.0, 3.0]
    assert [row.values["loss"] for row in run.rows(rank=0)] == [1.0, 3.0]
    assert [row.values["loss"] for row in run.rows(rank=1)] == [2.0, 5.0, 7.0]
    assert [row.step for row in run.rows(part="rollout-2")] == [0, None]
    assert run.columns("loss", rank=10) == ([1], [1.0])
    assert run.columns("loss") == ([0, 1], [1.0, 3.0])
    assert run.columns("loss", reduce="mean") == ([0, 1, 2], [4.0, 3.0, 7.0])
    assert run.columns("loss", reduce="sum") == ([0, 1, 2], [12.0, 9.0, 7.0])
    assert run.columns("loss", reduce="min") == ([0, 1, 2], [1.0, 1.0, 7.0])
    assert run.columns("loss", reduce="max") == ([0, 1, 2], [9.0, 5.0, 7.0])
    assert run.columns("loss", reduce="max", part="rank*") == ([0, 1, 2], [2.0, 5.0, 7.0])
    assert run.columns("none", reduce="mean") == ([], [])


def test_what_no_reader_can_be_asked_for(tmp_path: Path) -> None:
    """A reduction or a rank that there is not is an error that says what there is."""
    run = read_run(tmp_path)
    with pytest.raises(ValueError, match="reduce must be one of"):
        run.columns("loss", reduce="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rank from 0 on"):
        list(run.rows(rank=-1))
    with pytest.raises(ValueError, match="or a part"):
        list(run.rows(rank=1, part="a"))
    assert list(run.rows(rank=7)) == []


def test_reductions_are_those_of_a_plain_loop() -> None:
    """Whatever steps the parts have, the result is that of going through them one by one."""
    chance = random.Random(7)
    for _ in range(200):
        series = []
        for _ in range(chance.randrange(5)):
            steps = [chance.choice([None, *range(6)]) for _ in range(chance.randrange(8))]
            if chance.random() < 0.5:
                steps = list(range(4))
            series.append((steps, [chance.choice([1, 2.5, True, -3]) for _ in steps]))
        at: dict[int, list[float]] = {}
        for steps, values in series:
            last = {s: v for s, v in zip(steps, values, strict=True) if s is not None}
            for step, value in last.items():
                at.setdefault(step, []).append(value)
        for how, function in (("min", min), ("max", max), ("sum", sum)):
            expected = [function(at[step]) for step in sorted(at)]
            assert reduced(series, how) == (sorted(at), expected)
        means = [sum(at[step]) / len(at[step]) for step in sorted(at)]
        assert reduced(series, "mean")[1] == pytest.approx(means)


@pytest.mark.parametrize("how", ["mean", "min", "max", "sum"])
def test_a_nan_is_not_hidden_by_a_reduction(how: str) -> None:
    """Where one part has diverged the merged value says so, in whatever order they come."""
    series = [([0, 1], [1.0, math.nan]), ([0, 1], [2.0, 3.0]), ([1], [10**400])]
    for order in (series, series[::-1]):
        _, values = reduced(order, how)  # type: ignore[arg-type]
        assert math.isnan(values[1])


def test_a_part_goes_on_behind_what_a_killed_process_has_left(tmp_path: Path) -> None:
    """Its numbers go on, its new names hide no old ones, and a torn end is cut before."""
    with Journal(str(tmp_path), 1, part="a") as journal:
        journal.log_metrics({"x": 1.0, "y": 2.0}, 0)
        journal.log_metrics({"y": 3.0}, 1)
    path = tmp_path / file_name(1, "a")
    whole = path.read_bytes()
    for torn in (b"", whole[-30:-9], b"\xf5KJR"):
        path.write_bytes(whole + torn)
        journal = gone_on(tmp_path, "a")
        assert journal.position() == Position(1, 1)
        assert not journal.has_rows
        journal.log_metrics({"z": 4.0, "x": 5.0}, 2)
        assert journal.position() == Position(1, 2)
        journal.close()
        rows = list(read_run(tmp_path).rows(part="a"))
        assert [(row.seq, row.step, row.values) for row in rows] == [
            (0, 0, {"x": 1.0, "y": 2.0}),
            (1, 1, {"y": 3.0}),
            (2, 2, {"z": 4.0, "x": 5.0}),
        ]
        assert sum(read_run(tmp_path).of("a").damage()) == 0


def test_names_of_an_earlier_life_are_not_taken_for_those_of_a_later_one(tmp_path: Path) -> None:
    """Whoever reads only the end of the file finds the names of each row."""
    with Journal(str(tmp_path), 1, part="a") as journal:
        for step in range(100):
            journal.log_metrics({"x": 1.0}, step)
    with gone_on(tmp_path, "a") as journal:
        journal.log_metrics({"y": 2.0}, 100)
    size = os.path.getsize(tmp_path / file_name(1, "a"))
    with AttemptReader(str(tmp_path), 1, part="a") as reader:
        reader.seek_back(size // 2)
        rows = [(raw[-1], keys) for _, keys, raw in reader.rows()]
    assert rows[-2:] == [(99, ("x",)), (100, ("y",))]


def test_a_part_that_was_killed_before_its_first_block_begins_again(tmp_path: Path) -> None:
    """A journal that holds nothing whole is begun anew, under the same name."""
    path = tmp_path / file_name(1, "a")
    for begun in (b"", b"\xf5KJ"):
        path.write_bytes(begun)
        with gone_on(tmp_path, "a") as journal:
            journal.log_metrics({"x": 1.0}, 0)
        assert [row.seq for row in read_run(tmp_path).rows(part="a")] == [0]
        assert sum(read_run(tmp_path).of("a").damage()) == 0


def test_a_journal_that_is_gone_on_with_and_then_removed_is_begun_again(tmp_path: Path) -> None:
    """As an owner's: what follows is written to it anew, and reads back."""
    write(tmp_path, "a", [(0, 1.0)])
    journal = gone_on(tmp_path, "a")
    journal.log_metrics({"loss": 2.0}, 1)
    journal.flush()
    os.unlink(tmp_path / file_name(1, "a"))
    journal.log_metrics({"loss": 3.0}, 2)
    journal.close(5)
    assert [row.step for row in read_run(tmp_path).rows(part="a")] == [2]


def test_the_owners_resume_counts_for_parts_by_its_step(tmp_path: Path) -> None:
    """A part that says nothing of a resume goes back to the step that the owner has restored."""
    write(tmp_path, None, [(step, 1.0) for step in range(10)])
    write(tmp_path, "a", [(step, 1.0) for step in range(0, 12, 2)])
    write(tmp_path, "gone", [(step, 1.0) for step in range(12)])
    with Journal(str(tmp_path), 2) as journal:
        journal.log_event(RESUME, {"step": 5, "attempt": 1, "seq": 5})
        journal.log_metrics({"loss": 2.0}, 6)
    write(tmp_path, "a", [(6, 2.0), (7, 2.0)], attempt=2)
    run = read_run(tmp_path)
    assert run.columns("loss") == ([*range(6), 6], [1.0] * 6 + [2.0])
    assert run.columns("loss", part="a") == ([0, 2, 4, 6, 7], [1.0] * 3 + [2.0] * 2)
    assert run.columns("loss", part="gone") == (list(range(6)), [1.0] * 6)
    assert len(list(run.rows(True, part="a"))) == 8
    steps, values = run.columns("loss", reduce="sum")
    assert steps == list(range(8))
    assert values == [3.0, 2.0, 3.0, 2.0, 3.0, 2.0, 4.0, 2.0]


def test_a_parts_own_resume_counts_before_the_owners(tmp_path: Path) -> None:
    """A rank that has restored its shard says by position what it has left behind."""
    write(tmp_path, None, [(0, 1.0)])
    write(tmp_path, "rank1", [(0, 1.0), (1, 1.0), (2, 1.0)])
    with Journal(str(tmp_path), 2) as journal:
        journal.log_event(RESUME, {"step": 0})
    with Journal(str(tmp_path), 2, part="rank1") as journal:
        journal.log_event(RESUME, {"step": 0, "attempt": 1, "seq": 1})
        journal.log_metrics({"loss": 2.0}, 2)
    assert read_run(tmp_path).columns("loss", rank=1) == ([0, 1, 2], [1.0, 1.0, 2.0])


def test_an_owner_that_begins_from_scratch_takes_its_parts_along(tmp_path: Path) -> None:
    """All that the parts have logged before is superseded, also rows without a step."""
    write(tmp_path, None, [(0, 1.0)])
    write(tmp_path, "a", [(None, 1.0), (9, 1.0)])
    with Journal(str(tmp_path), 2) as journal:
        journal.log_event(RESUME, {"attempt": 1, "seq": -1})
    write(tmp_path, "a", [(0, 2.0)], attempt=2)
    assert read_run(tmp_path).columns("loss", part="a") == ([0], [2.0])


def test_a_resume_in_the_middle_of_an_attempt_counts_by_its_time(tmp_path: Path) -> None:
    """What a part has logged since the restored step and before the resume is left behind."""
    with Journal(str(tmp_path), 1) as owner, Journal(str(tmp_path), 1, part="a") as part:
        for step in range(4):
            owner.log_metrics({"loss": 1.0}, step)
            part.log_metrics({"loss": 1.0}, step)
        owner.log_event(RESUME, {"step": 1})
        for step in range(2, 5):
            owner.log_metrics({"loss": 2.0}, step)
            part.log_metrics({"loss": 2.0}, step)
    expected = ([0, 1, 2, 3, 4], [1.0, 1.0, 2.0, 2.0, 2.0])
    assert read_run(tmp_path).columns("loss") == expected
    assert read_run(tmp_path).columns("loss", part="a") == expected
    assert read_run(tmp_path).columns("loss", reduce="mean") == expected


def test_a_link_in_the_place_of_a_parts_journal_is_not_followed(tmp_path: Path) -> None:
    """No reader leaves the run's directory."""
    outside = tmp_path / "outside"
    outside.mkdir()
    write(outside, None, [(0, 1.0)])
    run = tmp_path / "run"
    run.mkdir()
    (run / file_name(1, "a")).symlink_to(outside / file_name(1))
    with pytest.raises(OSError, match=r"metrics\.1\.a\.journal"):
        list(read_run(run).rows(part="a"))
