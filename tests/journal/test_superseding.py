"""What a resumed run has left behind is superseded, and no good row with it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from keisei.journal.reader import read_run
from keisei.journal.records import Position
from keisei.journal.superseding import RESUME, Steps
from keisei.journal.writer import Journal


def log(run: Path, attempt: int, *rows: Any) -> None:
    """Write one attempt: a number is a step of `loss`, a pair metric and step, a dict a resume."""
    with Journal(str(run), attempt) as journal:
        for row in rows:
            if isinstance(row, dict):
                journal.log_event(RESUME, row)
            elif isinstance(row, tuple):
                key, step = row
                journal.log_metrics({key: float(attempt)}, step)
            else:
                journal.log_metrics({"loss": float(attempt)}, row)


def steps_of(run: Path, key: str = "loss") -> list[int | None]:
    """Return the steps of a metric that hold."""
    return list(read_run(run).columns(key)[0])


def test_another_axis_hides_nothing(tmp_path: Path) -> None:
    """An epoch's row, an evaluation at step 0 and a high first step leave every other row alone."""
    log(tmp_path, 1, *range(1000), ("epoch/loss", 5))
    log(tmp_path, 2, ("epoch/loss", 5), ("evaluation/return", 0), 5000, *range(500, 1000))
    assert sorted(map(str, steps_of(tmp_path))) == sorted(map(str, [*range(1000), 5000]))
    assert steps_of(tmp_path, "epoch/loss") == [5]
    assert read_run(tmp_path).columns("epoch/loss")[1] == [2.0]
    assert steps_of(tmp_path, "evaluation/return") == [0]


def test_a_row_loses_only_the_values_that_were_logged_again(tmp_path: Path) -> None:
    """It comes in two parts where superseded ones are asked for."""
    with Journal(str(tmp_path), 1) as journal:
        journal.log_metrics({"a": 1.0, "b": 2.0, "c": True}, 7)
        journal.log_metrics({"a": 1.5, "b": 2.5}, 8)
    with Journal(str(tmp_path), 2) as journal:
        journal.log_metrics({"b": 20.0, "d": 4}, 7)
    run = read_run(tmp_path)
    assert [(row.step, row.values) for row in run.rows()] == [
        (7, {"a": 1.0, "c": True}),
        (8, {"a": 1.5, "b": 2.5}),
        (7, {"b": 20.0, "d": 4}),
    ]
    parts = [row for row in run.rows(include_superseded=True) if (row.attempt, row.seq) == (1, 0)]
    assert [(row.superseded, row.values) for row in parts] == [
        (False, {"a": 1.0, "c": True}),
        (True, {"b": 2.0}),
    ]
    assert run.columns("b") == ([8, 7], [2.5, 20.0])
    assert run.columns("b", include_superseded=True)[0] == [7, 8, 7]


def test_a_position_cuts_whatever_the_steps_are(tmp_path: Path) -> None:
    """What was logged after a checkpoint was taken is left behind: rows without a step, too."""
    log(tmp_path, 1, 0, 1, None, ("epoch/loss", 0), 2, None, ("epoch/loss", 1), 3)
    log(tmp_path, 2, {"attempt": 1, "seq": 3, "step": 1}, 2, None)
    run = read_run(tmp_path)
    assert [(row.attempt, row.seq) for row in run.rows()] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 1),
        (2, 2),
    ]
    assert steps_of(tmp_path, "epoch/loss") == [0]
    assert [event.name for event in run.events()] == [RESUME]


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ([*range(10)], [{"step": 5}, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7]),
        ([*range(10)], [{"step": 5}], [0, 1, 2, 3, 4, 5]),
        ([*range(10)], [{"step": 20}, 21], [*range(10), 21]),
        ([*range(0, 100, 10)], [{"step": 35}, 40], [0, 10, 20, 30, 40]),
        ([*range(10)], [{"step": -1}, 0], [0]),
        ([*range(4), ("epoch", 1), *range(4, 8), ("epoch", 2)], [{"step": 5}, 6], [*range(7)]),
        ([("frames", 0), 0, ("frames", 900), 1, ("frames", 1800), 2], [{"step": 1}], [0, 1]),
        ([0, 1, None, 2, None], [{"step": 1}, 2], [0, 1, None, 2]),
    ],
)
def test_a_restored_step_is_turned_into_a_position(
    tmp_path: Path, first: list[Any], second: list[Any], left: list[int | None]
) -> None:
    """A program with checkpoints of its own says the step; other axes are cut where that was."""
    log(tmp_path, 1, *first)
    log(tmp_path, 2, *second)
    assert steps_of(tmp_path) == left


def test_other_axes_are_cut_at_the_position(tmp_path: Path) -> None:
    """What stood behind the restored step goes, whatever its own numbers."""
    log(tmp_path, 1, *range(4), ("epoch", 1), *range(4, 8), ("epoch", 2))
    log(tmp_path, 2, {"step": 5}, 6, 7, ("epoch", 2))
    assert steps_of(tmp_path, "epoch") == [1, 2]
    assert read_run(tmp_path).columns("epoch")[1] == [1.0, 2.0]


def test_resumes_may_follow_each_other(tmp_path: Path) -> None:
    """One from before an earlier one leaves that attempt behind, which hides nothing any more."""
    log(tmp_path, 1, *range(10))
    log(tmp_path, 2, {"step": 6}, 7, 8)
    log(tmp_path, 3, {"step": 3}, 4)
    assert steps_of(tmp_path) == [0, 1, 2, 3, 4]
    assert read_run(tmp_path).columns("loss")[1] == [1.0, 1.0, 1.0, 1.0, 3.0]


def test_a_program_that_goes_back_by_itself(tmp_path: Path) -> None:
    """Within one attempt, too, what was logged after the restored step is left behind."""
    log(tmp_path, 1, 0, 1, 2, 3, {"step": 1}, 2, {"step": 1}, 2, 3, 4)
    assert steps_of(tmp_path) == [0, 1, 2, 3, 4]
    assert [row.seq for row in read_run(tmp_path).rows()] == [0, 1, 7, 8, 9]


@pytest.mark.requirement("CKPT-7")
@pytest.mark.parametrize("seed", range(25))
def test_resumes_by_position_show_what_the_last_way_back_has(tmp_path: Path, seed: int) -> None:
    """Whichever checkpoint of whichever attempt is restored, also one that was left behind: what
    holds is what the run had when that was taken, and what has followed."""
    chance = random.Random(seed)
    taken: list[tuple[Position, list[Position]]] = []
    holds: list[Position] = []
    for attempt in range(1, chance.randint(3, 8)):
        with Journal(str(tmp_path), attempt) as journal:
            for _ in range(chance.randint(0, 30)):
                if taken and chance.random() < 0.1:
                    position, had = chance.choice(taken)
                    journal.log_event(RESUME, position._asdict())
                    holds = list(had)
                elif chance.random() < 0.2:
                    journal.log_event("checkpoint")
                else:
                    step = chance.choice([None, 0, 0, chance.randint(0, 20)])
                    journal.log_metrics({chance.choice("abc"): 1.0}, step)
                    holds.append(journal.position())
                if chance.random() < 0.3:
                    taken.append((journal.position(), list(holds)))
    run = read_run(tmp_path)
    cuts = run.cuts()
    rows = list(run.rows(include_superseded=True))
    found = [Position(row.attempt, row.seq) for row in rows]
    assert [position for position in found if position not in cuts] == holds


@pytest.mark.requirement("CKPT-7")
def test_a_third_attempt_resumes_from_a_checkpoint_of_the_first(tmp_path: Path) -> None:
    """What the second had logged goes, and what it had left behind of the first comes back."""
    log(tmp_path, 1, *range(10))
    log(tmp_path, 2, {"attempt": 1, "seq": 3}, 4, 5)
    assert steps_of(tmp_path) == [0, 1, 2, 3, 4, 5]
    log(tmp_path, 3, {"attempt": 1, "seq": 6}, 7, 8)
    assert read_run(tmp_path).columns("loss") == (
        [*range(9)],
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0],
    )
    log(tmp_path, 4, {"attempt": 3, "seq": 1}, 8)
    assert read_run(tmp_path).columns("loss")[1] == [*[1.0] * 7, 3.0, 4.0]


@pytest.mark.requirement("CKPT-7")
def test_what_is_said_by_position_hides_nothing_by_step(tmp_path: Path) -> None:
    """Evaluations that all stand at step 0, and epochs that are counted anew, are all there."""
    log(tmp_path, 1, ("eval", 0), ("epoch", 0), 0, ("eval", 0), 1, ("eval", 0))
    log(tmp_path, 2, {"attempt": 1, "seq": 3}, ("eval", 0), ("epoch", 0), 1)
    assert read_run(tmp_path).columns("eval") == ([0, 0, 0], [1.0, 1.0, 2.0])
    assert steps_of(tmp_path, "epoch") == [0, 0]
    assert steps_of(tmp_path) == [0, 1]
    log(tmp_path, 3, ("eval", 0), 1)  # which says nothing: so one value hides its predecessor
    assert read_run(tmp_path).columns("eval") == ([0, 0, 0], [1.0, 1.0, 3.0])
    assert read_run(tmp_path).columns("loss") == ([0, 1], [1.0, 3.0])


def test_many_attempts_take_no_quadratic_time(tmp_path: Path) -> None:
    """Of a thousand that each say where they begin, each is looked at for few of the others."""
    for attempt in range(1, 1001):
        log(tmp_path, attempt, {"attempt": max(1, attempt - 1), "seq": 2}, 2 * attempt, attempt)
    cuts = read_run(tmp_path).cuts()
    looked = 0

    class Counted(list[Any]):
        def __getitem__(self, at: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(at)

    cuts._way = Counted(cuts._stretches())
    assert sum(bool(cuts.of(attempt)) for attempt in range(1, 1001)) == 999
    assert looked < 40_000
    assert len(steps_of(tmp_path)) == 2000


def test_nonsense_hides_nothing(tmp_path: Path) -> None:
    """Whatever stands in an event of that name."""
    log(tmp_path, 1, *range(5))
    nonsense: list[Any] = [
        [],
        "step",
        None,
        {"step": "3"},
        {"step": True},
        {"attempt": 9, "seq": 1},
    ]
    for said in nonsense:
        with Journal(str(tmp_path), 2) as journal:
            journal.log_event(RESUME, said)
        assert steps_of(tmp_path) == [0, 1, 2, 3, 4]
        (tmp_path / "metrics.2.journal").unlink()


@pytest.mark.parametrize("seed", range(20))
def test_a_set_of_steps_is_a_set(seed: int) -> None:
    """Whatever order they come in."""
    chance = random.Random(seed)
    steps, known = Steps(), set[int]()
    for _ in range(30):
        start, stride = chance.randint(-50, 50), chance.randint(1, 4)
        for step in range(start, start + chance.randint(1, 20) * stride, stride):
            steps.add(step)
            known.add(step)
    steps.seal()
    assert [step in steps for step in range(-100, 200)] == [s in known for s in range(-100, 200)]


def test_a_long_training_costs_no_memory() -> None:
    """Steps in order are one entry."""
    steps = Steps()
    for step in range(0, 1_000_000, 10):
        steps.add(step)
    assert len(steps._starts) == 1
