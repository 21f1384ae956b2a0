"""What the registry is asked: which runs fit a query, in which order, and one run by its name."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keisei.errors import RegistryError, quoted
from keisei.store import tables
from keisei.store.columns import check_column, ordered
from keisei.store.compile import compiled
from keisei.store.matching import matches
from keisei.store.query import Node, parse
from keisei.store.rows import RunRow
from keisei.store.schema import runs

NEWEST_FIRST = "-started"
_IN_SQL = {
    "started": runs.c.started,
    "ended": runs.c.ended,
    "duration": runs.c.duration_s,
    "attempt": runs.c.attempt,
}


def find(
    connection: Connection,
    query: str = "",
    order_by: str = NEWEST_FIRST,
    limit: int | None = None,
    offset: int = 0,
) -> list[RunRow]:
    """Return the runs that fit a query.

    Args:
        connection: a transaction.
        query: the query; see `keisei.store.query`.
        order_by: the column to sort by; with `-` before it, the largest comes first.
        limit: the most runs; ``None`` for all.
        offset: how many to leave out first.

    Raises:
        QueryError: the query does not parse, or there is no such column.
    """
    node = parse(query, time.time())
    column = check_column(order_by.removeprefix("-"))
    condition, exact = compiled(node)
    statement = sa.select(runs).where(condition)
    if exact and column in _IN_SQL:
        key = _IN_SQL[column]
        first = key.desc() if order_by.startswith("-") else key.asc()
        statement = statement.order_by(first.nulls_last(), runs.c.name).limit(limit).offset(offset)
        return tables.read(connection, connection.execute(statement).all())
    rows = _checked(tables.read(connection, connection.execute(statement).all()), node, exact)
    end = None if limit is None else offset + limit
    return ordered(rows, order_by)[offset:end]


def one(connection: Connection, wanted: str) -> RunRow:
    """Return a run by its session id, its directory, or its name, which the newest has.

    Args:
        connection: a transaction.
        wanted: what it is known by.

    Raises:
        RegistryError: there is none.
    """
    found = connection.execute(
        sa.select(runs)
        .where(sa.or_(runs.c.key == wanted, runs.c.directory == wanted, runs.c.name == wanted))
        .order_by(runs.c.started.desc().nulls_last())
        .limit(1)
    ).all()
    if not found:
        raise RegistryError(f"the registry knows no run {quoted(wanted)}")
    return tables.read(connection, found)[0]


def _checked(rows: Sequence[RunRow], node: Node, exact: bool) -> list[RunRow]:
    return [row for row in rows if exact or matches(node, row)]


def statuses(connection: Connection, query: str = "") -> Counter[str]:
    """Return how many runs fit a query, by their status.

    Args:
        connection: a transaction.
        query: the query.

    Raises:
        QueryError: the query does not parse.
    """
    condition, exact = compiled(parse(query, time.time()))
    if not exact:
        return Counter(row.status for row in find(connection, query))
    statement = sa.select(runs.c.status, sa.func.count()).where(condition).group_by(runs.c.status)
    # A row is no pair to a type checker, so `dict` of the rows will not do.
    return Counter({status: number for status, number in connection.execute(statement)})  # noqa: C416


def changed(connection: Connection, query: str, seen: dict[str, float]) -> list[RunRow]:
    """Return the runs that fit a query and have changed since they were seen.

    Args:
        connection: a transaction.
        query: the query.
        seen: when each run had changed; it is updated.

    Raises:
        QueryError: the query does not parse.
    """
    node = parse(query, time.time())
    moments = connection.execute(sa.select(runs.c.key, runs.c.updated).order_by(runs.c.updated))
    new = {key: updated for key, updated in moments if seen.get(key) != updated}
    keys = list(new)
    found: list[RunRow] = []
    for at in range(0, len(keys), 500):
        some = sa.select(runs).where(runs.c.key.in_(keys[at : at + 500])).order_by(runs.c.updated)
        found += tables.read(connection, connection.execute(some).all())
    seen.update(new)
    return [row for row in found if matches(node, row)]
