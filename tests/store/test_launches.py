"""The rows in which a registry keeps what the ranks of launches agree on."""

from __future__ import annotations

import sqlalchemy as sa

from keisei.run.lease import Holder
from keisei.run.owned import this_owner
from keisei.run.session_file import Owner
from keisei.store.database import Database
from keisei.store.launches import LaunchRow
from keisei.store.renewal import Leases
from keisei.store.schema import launches

KEY = "0123.0.0.0.json"
LIMIT = 60.0  # seconds that a busy machine may take
ELSEWHERE = Owner(host="node-7", pid=12, process_start="elsewhere")
OTHER = ELSEWHERE.model_copy(update={"pid": 13})


def held(url: str, session_id: str) -> None:
    """Acquire the lease of a run, as its owner elsewhere does."""
    lease = Leases(url, 30.0).acquire(session_id, Holder("node-7", 12, "elsewhere", 1))
    assert not isinstance(lease, Holder)
    assert lease.lease is not None


def test_one_owner_takes_a_row(url: str) -> None:
    """Whoever comes second gets what the first has published, and the first may come again."""
    row = LaunchRow(url, KEY)
    assert row.take(ELSEWHERE, b"first", None) is None
    assert row.take(OTHER, b"second", None) == b"first"
    assert row.take(ELSEWHERE, b"again", None) is None
    assert LaunchRow(url, "other").take(OTHER, b"second", None) is None
    found = row.find().result(LIMIT)
    assert found is not None
    assert (found.agreement, found.is_new, found.is_held) == (b"again", True, False)
    assert LaunchRow(url, "none").find().result(LIMIT) is None


def test_the_row_of_an_owner_that_is_gone_is_free(url: str) -> None:
    """One that is seen, or known, to be dead keeps no row, nor one that has said its last word."""
    row = LaunchRow(url, KEY)
    dead = this_owner().model_copy(update={"process_start": "an earlier one"})
    assert row.take(dead, b"dead", None) is None
    assert row.take(ELSEWHERE, b"elsewhere", None) is None
    assert row.take(OTHER, b"other", ELSEWHERE) is None
    row.publish(OTHER, b"no run", None).result(LIMIT)
    assert row.take(ELSEWHERE, b"elsewhere", None) is None
    row.publish(OTHER, b"late", None).result(LIMIT)
    found = row.find().result(LIMIT)
    assert found is not None
    assert (found.agreement, found.is_over) == (b"elsewhere", False)


def test_an_owner_has_its_row_as_long_as_its_lease(url: str) -> None:
    """A run whose lease is held, or that is new, has its launch's row; any other has not."""
    row, session_id = LaunchRow(url, KEY), "01J0000000000000000000000A"
    held(url, session_id)
    assert row.take(ELSEWHERE, b"begun", None) is None
    row.publish(ELSEWHERE, b"run", session_id).result(LIMIT)
    with Database(url) as database, database.writing() as connection:
        connection.execute(sa.update(launches).values(new_until=0.0))
    found = row.find().result(LIMIT)
    assert found is not None
    assert (found.is_new, found.is_held) == (False, True)
    assert row.take(OTHER, b"other", None) == b"run"
    row.publish(ELSEWHERE, b"run", "01J0000000000000000000000B").result(LIMIT)
    with Database(url) as database, database.writing() as connection:
        connection.execute(sa.update(launches).values(new_until=0.0))
    assert row.take(OTHER, b"other", None) is None


def test_rows_of_old_launches_are_removed(url: str) -> None:
    """A launch that will not be started again leaves nothing behind."""
    assert LaunchRow(url, KEY).take(ELSEWHERE, b"old", None) is None
    with Database(url) as database, database.writing() as connection:
        connection.execute(sa.update(launches).values(updated=0.0))
    assert LaunchRow(url, "new").take(OTHER, b"new", None) is None
    with Database(url) as database, database.reading() as connection:
        assert connection.execute(sa.select(launches.c.key)).scalars().all() == ["new"]
