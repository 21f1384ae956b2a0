"""A query in SQL means what it means for a row in Python."""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keisei.store import reading, tables
from keisei.store.database import Database
from keisei.store.matching import matches
from keisei.store.query import parse
from keisei.store.rows import MetricSummary, RunRow
from keisei.store.schema import runs
from keisei.store.tables import Entry

NUMBERS = st.none() | st.floats(-3, 3).map(lambda x: round(x, 1))
WORDS = st.text(alphabet="aAbB%_\\*?éK1", min_size=1, max_size=4)
ROWS = st.builds(
    RunRow,
    name=WORDS,
    directory=st.uuids().map(lambda one: f"/runs/{one}"),
    status=st.sampled_from(["failed", "completed", "running"]),
    attempt=st.none() | st.integers(1, 4),
    host=st.none() | WORDS,
    started=NUMBERS,
    ended=NUMBERS,
    duration_s=NUMBERS,
    failure=st.none() | WORDS,
    note=st.none() | WORDS,
    tags=st.lists(WORDS, max_size=3, unique=True).map(lambda one: tuple(sorted(one))),
    config=st.fixed_dictionaries({"env": st.fixed_dictionaries({"seed": st.integers(0, 3)})}),
    metrics=st.dictionaries(
        st.sampled_from(["loss", "a/b"]),
        st.builds(MetricSummary, last=NUMBERS, min=NUMBERS, count=st.integers(0, 3)),
        max_size=2,
    ),
    checkpoints=st.just({}) | st.builds(lambda count: {"count": count}, st.integers(0, 3)),
)
TEXT_FIELDS = st.sampled_from(["name", "status", "host", "tag", "note", "failure"])
NUMBER_FIELDS = st.sampled_from(["attempt", "duration", "loss.last", "a/b.min", "loss.count"])
VALUES = st.text(alphabet="aAbBé%_?*1K" + string.digits[:2], min_size=1, max_size=3)
CONDITIONS = st.one_of(
    st.builds(
        lambda field, sign, values: f"{field}{sign}{','.join(values)}",
        TEXT_FIELDS,
        st.sampled_from([":", "!="]),
        st.lists(VALUES, min_size=1, max_size=2),
    ),
    st.builds(
        lambda field, sign, value: f"{field}{sign}{value}",
        NUMBER_FIELDS,
        st.sampled_from(["<", "<=", ">", ">=", "=", "!="]),
        st.integers(0, 4),
    ),
    st.builds("env.seed>={}".format, st.integers(0, 3)),
    st.sampled_from(["status:failed", "status!=failed", "tag:a", "tracker:wandb", "checkpoints>1"]),
)
QUERIES = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not {}".format, inner),
    ),
    max_leaves=5,
)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An empty registry."""
    with Database(url) as opened:
        yield opened


@pytest.mark.requirement("REG-6")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(ROWS, min_size=1, max_size=12), queries=st.lists(QUERIES, min_size=8))
def test_sql_and_python_agree(database: Database, rows: list[RunRow], queries: list[str]) -> None:
    """The registry finds the rows that fit, no other, in the same order."""
    with database.writing() as connection:
        connection.execute(runs.delete())
        tables.write(connection, [Entry(row, 1.0) for row in rows])
        for query in queries:
            node = parse(query, 0.0)
            expected = {row.directory for row in rows if matches(node, row)}
            found = reading.find(connection, query)
            assert {row.directory for row in found} == expected, query
            assert reading.statuses(connection, query).total() == len(expected), query


def test_a_row_comes_back_as_it_was(database: Database) -> None:
    """Text of any kind, numbers that are not finite, and nothing at all come back."""
    row = RunRow(
        name="r",
        directory="/runs/\udcffr",
        session_id="01JDA0000000000000000000AB",
        status="failed",
        attempt=2,
        pid=2**33,
        started=1.5,
        failure="größer 'quoted' \\ \"",
        tags=("a", "b"),
        note="two\nlines",
        config={"env": {"seed": 3}, "x": [1, None, "\ud800"]},
        metrics={
            "up": MetricSummary(last=float("inf"), min=-1e308, count=2**40, step=2**70),
            "x": MetricSummary(count=0),
        },
        trackers={"wandb": "live"},
        checkpoints={"count": 2, "latest": 2**40, "best": None},
    )
    with database.writing() as connection:
        tables.write(connection, [Entry(row, 1.0)])
        (found,) = reading.find(connection, "id:01JDA0000000000000000000AB")
    assert found.directory == "/runs/\\udcffr"
    known = {
        name: getattr(found, name)
        for name in ("failure", "tags", "note", "config", "pid", "checkpoints")
    }
    assert known == {name: getattr(row, name) for name in known}
    assert found.metrics["up"] == MetricSummary(float("inf"), -1e308, count=2**40)


def test_an_older_word_changes_nothing(database: Database) -> None:
    """What was true later stays, whichever is written last."""
    with database.writing() as connection:
        for status, updated in (("running", 1.0), ("completed", 3.0), ("running", 2.0)):
            row = RunRow("r", "/runs/r", session_id="x", status=status)
            tables.write(connection, [Entry(row, updated)])
        assert [row.status for row in reading.find(connection)] == ["completed"]
        tables.forget(connection, ["x"])
        assert reading.find(connection) == []


def test_an_earlier_attempts_word_is_older(database: Database) -> None:
    """Whatever its clock says; a session file that cannot be read, and a rebuild, are believed."""
    words: list[tuple[int | None, float, bool, int | None]] = [
        (1, 9000.0, False, 1),
        (2, 1.0, False, 2),  # by a host whose clock is behind
        (1, 9999.0, False, 2),  # by a process that was stopped meanwhile
        (None, 2.0, False, None),
        (2, 3.0, False, 2),
        (1, 4.0, True, 1),
    ]
    with database.writing() as connection:
        for attempt, updated, anew, then in words:
            row = RunRow("r", "/runs/r", session_id="x", attempt=attempt)
            tables.write(connection, [Entry(row, updated)], anew=anew)
            assert [row.attempt for row in reading.find(connection)] == [then]


@pytest.mark.parametrize("order_by", ["-started", "started", "name", "-env.seed", "loss.last"])
def test_pages_hold_every_run_once(database: Database, order_by: str) -> None:
    """Limit and offset walk through the whole order, whether SQL sorts or not."""
    rows: list[Any] = [
        RunRow(
            f"r{n}",
            f"/runs/r{n}",
            started=None if n % 3 == 0 else float(n % 5),
            config={"env": {"seed": n % 4}},
            metrics={"loss": MetricSummary(last=n / 7)},
        )
        for n in range(17)
    ]
    with database.writing() as connection:
        tables.write(connection, [Entry(row, 1.0) for row in rows])
        whole = [row.name for row in reading.find(connection, "", order_by)]
        pages = [reading.find(connection, "", order_by, 5, at) for at in range(0, 20, 5)]
    assert [row.name for page in pages for row in page] == whole
    assert sorted(whole) == sorted(row.name for row in rows)


def test_hostile_words_are_only_words(database: Database, tmp_path: Path) -> None:
    """Quotes, wildcards of SQL and NUL in a query ask, and do nothing else."""
    with database.writing() as connection:
        tables.write(connection, [Entry(RunRow("r", "/runs/r"), 1.0)])
        for word in ("'; DROP TABLE keisei_runs; --", "%", "_", "\\", "\0", "\udcff", "r%"):
            escaped = word.replace("\\", "\\\\").replace('"', '\\"')
            assert reading.find(connection, f'name:"{escaped}"') == []
        assert len(reading.find(connection)) == 1
    del tmp_path
