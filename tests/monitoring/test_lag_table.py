"""The table of what has held a loop, by function: counted, limited, and read from the journal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keisei.monitoring.lag_table import (
    LAG,
    MOST_EVENTS,
    MOST_FUNCTIONS,
    STALL,
    LagTable,
    Limit,
    event_of,
    folded,
)
from keisei.monitoring.stalls import Cause, Frame


def stall(
    seconds: float, function: str = "step", line: int = 7, cause: Cause = "own code"
) -> dict[str, Any]:
    """Return the event of a stall."""
    return event_of(seconds, cause, Frame("/home/me/train.py", line, function))


def test_a_function_has_a_row() -> None:
    """Its stalls are counted and added up; the line is that of the longest one."""
    table = LagTable()
    for event in (
        stall(0.2, line=3),
        stall(0.5, line=9),
        stall(0.1, line=4, cause="garbage collection"),
        stall(2.0, "save"),
    ):
        table.add(event)
    data = table.as_data()
    assert json.loads(json.dumps(data)) == data
    assert [row["function"] for row in data["functions"]] == ["save", "step"]
    assert data["functions"][1] == {
        "function": "step",
        "file": "/home/me/train.py",
        "line": 9,
        "count": 3,
        "seconds": 0.8,
        "longest_s": 0.5,
        "causes": {"code": 2, "gc": 1},
    }
    assert (data["stalls"], data["seconds"], data["longest_s"]) == (4, 2.8, 2.0)


def test_nobody_is_to_blame_for_a_cpu_that_is_another_process_s() -> None:
    """Where the loop stood without a CPU, or with a stopped process, is no function's fault."""
    table = LagTable()
    table.add(stall(0.3, cause="no CPU"))
    table.add(stall(0.4, cause="suspended"))
    (row,) = table.as_data()["functions"]
    assert (row["function"], row["file"], row["line"]) == (None, None, None)
    assert row["causes"] == {"no_cpu": 1, "suspended": 1}


def test_a_table_stays_short() -> None:
    """The least of many functions are added up in one row, the last one; none is lost."""
    table = LagTable()
    for number in range(5 * MOST_FUNCTIONS):
        table.add(stall(1 + number / 1000, f"f{number}"))
    data = table.as_data()
    assert len(data["functions"]) == MOST_FUNCTIONS + 1
    assert data["functions"][-1]["function"] == "(others)"
    assert data["stalls"] == sum(row["count"] for row in data["functions"]) == 5 * MOST_FUNCTIONS
    again = LagTable()
    again.add_table(data)
    assert again.as_data() == data


def test_a_function_has_so_many_events_in_a_minute() -> None:
    """Then no more, until the next minute; another function has its own."""
    limit = Limit()
    admitted = [limit.admits(stall(0.2), now=100.0 + number) for number in range(20)]
    assert admitted == [True] * MOST_EVENTS + [False] * (20 - MOST_EVENTS)
    assert limit.admits(stall(0.2, "save"), now=120.0)
    assert limit.admits(stall(0.2), now=161.0)


def test_an_attempts_last_table_counts_and_what_is_behind_it() -> None:
    """A process that was killed has logged no last table: its stalls count all the same."""
    before = LagTable()
    before.add(stall(0.2))
    before.left_out = 3
    whole = LagTable()
    whole.add(stall(0.2))
    whole.add(stall(0.3))
    whole.left_out = 4
    first = [(STALL, stall(0.2)), (LAG, before.as_data()), (LAG, whole.as_data())]
    killed = [(STALL, stall(0.4)), (LAG, before.as_data()), (STALL, stall(0.7, "save"))]
    data = folded([first, [], killed])
    assert data is not None
    assert data["left_out"] == 7
    assert {row["function"]: row["count"] for row in data["functions"]} == {"step": 3, "save": 1}
    assert data["seconds"] == pytest.approx(0.2 + 0.3 + 0.2 + 0.7)


def test_what_is_no_stall_of_keiseis_is_passed_over() -> None:
    """A program may log events of these names, and a journal may be damaged."""
    foreign: list[tuple[str, object]] = [
        (STALL, {"machine": 3}),
        (STALL, None),
        (STALL, {"cause": ["code"], "seconds": 1}),
        (LAG, "no table"),
    ]
    assert folded([foreign]) is None
    odd = {"functions": [3, {"count": "many", "causes": 4}], "left_out": None}
    data = folded([[(LAG, odd), (STALL, {"cause": "code", "seconds": float("nan")})]])
    assert data is not None
    assert data["seconds"] == 0.0
    assert folded([]) is None
