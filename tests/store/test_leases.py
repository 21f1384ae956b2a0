"""A run's lease has one owner, until its time is over by the database's clock."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from keisei._io import process
from keisei.run.lease import Holder
from keisei.store import clock, leases, schema
from keisei.store.database import Database

FIRST = Holder("node-1", 11, "started", 1)
SECOND = Holder("node-2", 22, "started", 2)
LONG = 1000.0  # seconds


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An empty registry."""
    with Database(url) as opened:
        yield opened


def acquire(database: Database, owner: Holder, ttl: float = LONG, **more: object) -> int | Holder:
    """Acquire the lease of run `r` in a transaction of its own."""
    with database.writing() as connection:
        return leases.acquire(connection, "r", owner, ttl, **more)  # type: ignore[arg-type]


def renew(database: Database, owner: Holder, epoch: int, ttl: float = LONG) -> Holder | None:
    """Renew the lease of run `r` in a transaction of its own."""
    with database.writing() as connection:
        return leases.renew(connection, "r", owner, epoch, ttl)


def is_over(database: Database) -> None:
    """Let the time of all leases be over."""
    with database.writing() as connection:
        connection.execute(sa.update(schema.leases).values(expires=clock.now() - 1.0))


def test_a_lease_is_one_owners_until_its_time_is_over(database: Database) -> None:
    """Then another one acquires it with the next epoch, and the first can renew it no more."""
    assert acquire(database, FIRST) == 1
    assert acquire(database, SECOND) == FIRST
    assert renew(database, FIRST, 1) is None
    is_over(database)
    assert acquire(database, SECOND) == 2
    assert renew(database, FIRST, 1) == SECOND
    assert acquire(database, FIRST) == SECOND


def test_a_late_owner_renews_what_nobody_has_taken(database: Database) -> None:
    """An outage that is longer than the lease costs nobody a run."""
    acquire(database, FIRST)
    is_over(database)
    assert renew(database, FIRST, 1) is None
    assert acquire(database, SECOND) == FIRST


def test_a_lease_that_was_released_is_free(database: Database) -> None:
    """Who has lost it cannot release the next one's."""
    acquire(database, FIRST)
    for owner, epoch in ((SECOND, 1), (FIRST, 1)):
        with database.writing() as connection:
            leases.release(connection, "r", owner, epoch)
        taken = acquire(database, SECOND)
        assert taken == (FIRST if owner == SECOND else 2)


def test_the_lease_of_an_owner_that_has_ended_is_free(database: Database) -> None:
    """It is the named owner's, and no other one's."""
    acquire(database, FIRST)
    assert acquire(database, SECOND, gone=FIRST._replace(pid=12)) == FIRST
    assert acquire(database, SECOND, gone=FIRST) == 2


def test_epochs_go_on_in_a_registry_that_was_made_anew(database: Database) -> None:
    """Those in the session files are older, and a renewal brings its lease back."""
    assert acquire(database, FIRST, least=7) == 7
    with database.writing() as connection:
        connection.execute(sa.delete(schema.leases))
    assert renew(database, FIRST, 7) is None
    assert acquire(database, SECOND) == FIRST
    is_over(database)
    assert acquire(database, SECOND, least=5) == 8


@pytest.mark.parametrize("first", [True, False], ids=["new", "over"])
def test_of_many_that_ask_at_once_one_acquires_it(database: Database, *, first: bool) -> None:
    """The statement that takes it looks again."""
    if not first:
        acquire(database, FIRST)
        is_over(database)
    owners = [Holder("node", pid, "started", 2) for pid in range(16)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda owner: acquire(database, owner), owners))
    (winner,) = [owner for owner, got in zip(owners, answers, strict=True) if isinstance(got, int)]
    assert [got for got in answers if isinstance(got, Holder)] == [winner] * 15


def test_a_boot_of_the_machine_ends_its_leases(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In SQLite, whose clock begins anew; the wall clock ends none."""
    if not database.is_sqlite:
        pytest.skip("Postgres has a clock of its own")
    acquire(database, FIRST)
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert acquire(database, SECOND) == FIRST
    database.close()
    monkeypatch.setattr(process, "kernel", lambda: "the next boot")
    assert acquire(database, SECOND) == 2


def test_an_earlier_registry_gets_the_table(url: str) -> None:
    """Its version is raised, and its rows stay."""
    with Database(url) as first, first.writing() as connection:
        connection.execute(sa.text("DROP TABLE keisei_leases"))
        connection.execute(sa.text("ALTER TABLE keisei_runs DROP COLUMN cost"))
        connection.execute(sa.update(schema.schema).values(version=1))
        registry = first.registry
    with Database(url) as second:
        assert second.registry == registry
        assert acquire(second, FIRST) == 1
