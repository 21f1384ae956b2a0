"""A run is lost when its owner has stopped renewing its lease, wherever it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keisei import AsyncRegistry
from keisei._io import process
from keisei.run.lease import Holder
from keisei.store import clock, leases, lost, reading, schema, tables
from keisei.store.database import Database
from keisei.store.matching import matches
from keisei.store.query import parse
from keisei.store.rows import RunRow
from keisei.store.tables import Entry

STATES = ("running", "elsewhere", "died", "failed", "completed", "corrupt")
TTL = 1000.0  # seconds


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An empty registry."""
    with Database(url) as opened:
        yield opened


def owner(attempt: int = 1) -> Holder:
    return Holder("node-1", 11, "started", attempt)


def run(name: str, status: str = "running", attempt: int = 1) -> RunRow:
    return RunRow(name, f"/runs/{name}", session_id=name, status=status, attempt=attempt)


def write(database: Database, *rows: RunRow) -> None:
    """Write runs in a transaction of its own."""
    with database.writing() as connection:
        tables.write(connection, [Entry(row, 1.0) for row in rows])


def acquire(database: Database, name: str, attempt: int = 1) -> int:
    """Acquire a run's lease, and return its epoch."""
    with database.writing() as connection:
        epoch = leases.acquire(connection, name, owner(attempt), TTL)
    assert isinstance(epoch, int)
    return epoch


def run_out(database: Database, *names: str) -> None:
    """Let the time of some leases be over by a second."""
    with database.writing() as connection:
        one = schema.leases.c.session_id.in_(names)
        connection.execute(sa.update(schema.leases).where(one).values(expires=clock.now() - 1.0))


def states(database: Database, query: str = "") -> dict[str, str]:
    """Return how the runs stand that fit a query, by name."""
    with database.reading() as connection:
        return {row.name: row.status for row in reading.find(connection, query)}


@pytest.mark.requirement("REG-4")
def test_a_run_is_lost_when_its_owner_stops_renewing(database: Database) -> None:
    """It is so for lists, for one run, in queries and in counts; and runs again once renewed."""
    write(database, run("a"), run("b"), run("c"))
    epoch = acquire(database, "a")
    acquire(database, "b")
    assert set(states(database).values()) == {"running"}
    run_out(database, "a")
    assert states(database) == {"a": "lost", "b": "running", "c": "running"}
    assert states(database, "status:lost") == {"a": "lost"}
    assert set(states(database, "not status:LOS*")) == {"b", "c"}
    with database.reading() as connection:
        assert reading.one(connection, "a").status == "lost"
        assert reading.statuses(connection) == {"running": 2, "lost": 1}
        assert reading.statuses(connection, "status:lost name:a") == {"lost": 1}
    with database.writing() as connection:
        assert leases.renew(connection, "a", owner(), epoch, TTL) is None
    assert states(database)["a"] == "running"


@pytest.mark.requirement("REG-4")
@pytest.mark.parametrize("status", STATES)
def test_what_is_known_for_sure_is_not_lost(database: Database, status: str) -> None:
    """Who is known to be dead has died, and who has ended has ended, whatever its lease says."""
    write(database, run("a", status), run("b", status))
    acquire(database, "a")
    acquire(database, "b")
    run_out(database, "a")
    unsure = status in ("running", "elsewhere")
    expected = {"a": "lost", "b": "running"} if unsure else {"a": status, "b": status}
    assert states(database) == expected


def test_a_lease_of_another_attempt_says_what_it_can(database: Database) -> None:
    """An earlier attempt's says nothing of a later one; a later one's is about the run."""
    write(database, run("later", attempt=2), run("earlier", attempt=1))
    acquire(database, "later", 1)
    acquire(database, "earlier", 2)
    run_out(database, "later", "earlier")
    assert states(database) == {"later": "running", "earlier": "lost"}


def test_who_has_released_a_lease_is_not_lost(database: Database) -> None:
    """Its end is on its way to the registry."""
    write(database, run("a"))
    epoch = acquire(database, "a")
    run_out(database, "a")
    with database.writing() as connection:
        leases.release(connection, "a", owner(), epoch)
    assert states(database) == {"a": "running"}


def test_clocks_that_jump_lose_nobody(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's clock decides; in SQLite a boot of the machine ends what ran before."""
    write(database, run("a"))
    acquire(database, "a")
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert states(database) == {"a": "running"}
    database.close()
    monkeypatch.setattr(process, "kernel", lambda: "the next boot")
    assert states(database) == {"a": "lost" if database.is_sqlite else "running"}


@pytest.mark.requirement("REG-4", "REG-6")
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    runs=st.lists(
        st.tuples(
            st.sampled_from(STATES),
            st.sampled_from(["none", "lives", "over", "released"]),
            st.integers(1, 2),
            st.integers(1, 2),
        ),
        min_size=1,
        max_size=8,
    ),
    query=st.sampled_from(
        ["status:lost", "status:running", "status!=lost", "not status:lost,died", "status:l*"]
    ),
)
def test_sql_and_python_agree_on_who_is_lost(
    database: Database, runs: list[tuple[str, str, int, int]], query: str
) -> None:
    """A query finds the rows that fit it as they come back."""
    with database.writing() as connection:
        for table in (schema.runs, schema.leases):
            connection.execute(sa.delete(table))
    for at, (status, lease, attempt, held) in enumerate(runs):
        write(database, run(f"r{at}", status, attempt))
        if lease != "none":
            epoch = acquire(database, f"r{at}", held)
            if lease == "over":
                run_out(database, f"r{at}")
            if lease == "released":
                with database.writing() as connection:
                    leases.release(connection, f"r{at}", owner(held), epoch)
    with database.reading() as connection:
        fits = [row for row in reading.find(connection) if matches(parse(query, 0.0), row)]
        assert {row.name for row in reading.find(connection, query)} == {row.name for row in fits}
        counts = reading.statuses(connection, query)
        assert counts.total() == len(fits)
        assert set(counts) == {row.status for row in fits}


@pytest.mark.requirement("REG-4", "REG-5")
async def test_a_watcher_sees_who_is_lost(database: Database, url: str) -> None:
    """Nobody writes the row, and it changes all the same."""
    seen: list[tuple[str, str]] = []
    await anyio.to_thread.run_sync(write, database, run("a"), run("b"))
    await anyio.to_thread.run_sync(acquire, database, "a")
    async with AsyncRegistry(url) as registry:
        with anyio.fail_after(60):
            async for row in registry.watch():
                seen.append((row.name, row.status))
                if len(seen) == 2:
                    await anyio.to_thread.run_sync(run_out, database, "a")
                if len(seen) == 3:
                    break
    assert sorted(seen[:2]) == [("a", "running"), ("b", "running")]
    assert seen[2] == ("a", "lost")


def test_a_lost_run_is_taken_over_once(database: Database) -> None:
    """Who closes it has its lease; one that was renewed meanwhile stays its owner's."""
    epoch = acquire(database, "a")
    with database.writing() as connection:
        lease = lost.lease_of(connection, "a", 1)
        assert lease is not None
        assert (lease.holder, lease.lives) == (owner(), True)
        assert lost.lease_of(connection, "a", 2) is None
        assert lost.lease_of(connection, "b", 1) is None
        assert lost.take_over(connection, "a", 1) is None
    run_out(database, "a")
    with database.writing() as connection:
        lease = lost.lease_of(connection, "a", 1)
        assert lease is not None
        assert not lease.lives
        assert lease.silent == pytest.approx(TTL + 1.0, abs=60.0)
        taken = lost.take_over(connection, "a", 1)
        assert taken is not None
        assert taken[1] == epoch + 1
        assert leases.renew(connection, "a", owner(), epoch, TTL) == taken[0]
        leases.release(connection, "a", *taken)
        assert lost.lease_of(connection, "a", 1) is None
