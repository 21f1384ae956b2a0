"""What runs have cost, in lists of runs: from the directories, and from the registry."""

from __future__ import annotations

import sqlalchemy as sa

from keisei import Registry, SessionManager
from keisei.store import reading, schema, tables
from keisei.store.columns import ordered
from keisei.store.database import Database
from keisei.store.directories import cost_in, rows
from keisei.store.matching import matches
from keisei.store.query import parse
from keisei.store.rows import RunRow
from keisei.store.tables import Entry
from tests.conftest import MakeConfig


def row(name: str, total: float | None, **totals: str) -> RunRow:
    cost = {"total": total, "currency": "USD", "totals": totals} if totals else {}
    return RunRow(name, f"/runs/{name}", session_id=name, cost=cost)


ROWS = [row("a", 2.5, USD="2.5", EUR="7"), row("b", 30.0, USD="30"), row("c", None)]


def test_runs_are_found_and_sorted_by_their_cost(url: str) -> None:
    """The registry and the directories find the same ones, and what costs nothing comes last."""
    with Database(url) as database, database.writing() as connection:
        tables.write(connection, [Entry(each, 1.0) for each in ROWS])
        for query in ("cost>10", "cost<=2.5", "cost!=30", "not cost>1", "cost=2.5,30", ""):
            found = reading.find(connection, query, "-cost")
            node = parse(query, 0.0)
            same = ordered([each for each in ROWS if matches(node, each)], "-cost")
            assert [each.name for each in found] == [each.name for each in same], query
        read = {each.name: dict(each.cost) for each in reading.find(connection)}
    assert read == {each.name: dict(each.cost) for each in ROWS}


def test_an_earlier_registry_gets_the_column(url: str) -> None:
    """Its rows stay, and have no cost yet."""
    with Database(url) as first, first.writing() as connection:
        tables.write(connection, [Entry(ROWS[2], 1.0)])
        connection.execute(sa.text("ALTER TABLE keisei_runs DROP COLUMN cost"))
        connection.execute(sa.update(schema.schema).values(version=4))
    with Database(url) as second, second.writing() as connection:
        assert [each.name for each in reading.find(connection, "not cost>0")] == ["c"]
        tables.write(connection, [Entry(ROWS[1], 2.0)])
        assert [each.name for each in reading.find(connection, "cost>10")] == ["b"]


def test_the_registry_follows_what_a_run_costs(url: str, make_config: MakeConfig) -> None:
    """At a run's end its row has what it has cost by its journals, over its attempts."""
    config = make_config(registry={"url": url})
    for amount in ("0.25", "0.5"):
        with SessionManager(config, run_name="r") as session:
            session.log_cost(amount, "api")
            session.log_cost(4, "rent", "EUR")
    with Registry(url) as registry:
        [found] = registry.runs("cost>0.7")
    [own] = rows(str(config.logging.log_dir))
    assert found.cost["totals"] == {"EUR": "8", "USD": "0.75"}
    assert dict(found.cost) == dict(own.cost)


def test_a_live_runs_cost_is_what_its_owner_says() -> None:
    """An event has the totals of the run; one that has none, or is damaged, says nothing."""
    said = {"currency": "USD", "run": {"USD": "1.5", "EUR": "2"}}
    assert cost_in(said) == {
        "total": 1.5,
        "currency": "USD",
        "totals": {"EUR": "2", "USD": "1.5"},
    }
    measured = cost_in({"currency": "USD", "run": {}, "energy_kwh": 0.5, "unpriced": 2})
    assert measured == {
        "total": None,
        "currency": "USD",
        "totals": {},
        "energy_kwh": 0.5,
        "unpriced": 2,
    }
    assert cost_in(None) == cost_in({}) == cost_in({"run": {}}) == cost_in({"run": 3}) == {}
