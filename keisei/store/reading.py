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
from keisei.store.lost import STATUS, UNSURE
from keisei.store.matching import matches
from keisei.store.query import Node, parse
from keisei.store.rows import RunRow
from keisei.store.schema import runs

NEWEST_FIRST = "-started"
_IN_SQL = {
    "started": runs.c.started,
    "ended": runs.c.ended,
    "cost": runs.c.cost,
    "duration": runs.c.duration_s,
    "attempt": runs.c.attempt,
}
_SELECT = sa.select(
    *(STATUS.label("status") if column is runs.c.status else column for column in runs.c)
)


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
    statement = _SELECT.where(condition)
    if exact and column in _IN_SQL:
        key = _IN_SQL[column]
        first = key.desc() if order_by.startswith("-") else key.asc()
        page = statement.limit(limit).offset(offset)
        if limit is not None:  # by its index, which has those without a value where each likes it
            some = page.where(key.is_not(None)).order_by(first, runs.c.name)
            if len(found := connection.execute(some).all()) == limit:
                return tables.read(connection, found)
        whole = page.order_by(first.nulls_last(), runs.c.name)
        return tables.read(connection, connection.execute(whole).all())
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
    if (row := known(connection, wanted)) is None:
        raise RegistryError(
            f"the registry knows no run {quoted(wanted)}: `keisei registry rebuild ROOT` tells it "
            "of the runs under a root"
        )
    return row


def known(connection: Connection, wanted: str) -> RunRow | None:
    """Return a run as `one` does; ``None`` where there is none."""
    found = connection.execute(
        _SELECT.where(
            sa.or_(runs.c.key == wanted, runs.c.directory == wanted, runs.c.name == wanted)
        )
        .order_by(runs.c.started.desc().nulls_last())
        .limit(1)
    ).all()
    return tables.read(connection, found)[0] if found else None


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
    # Of most runs the status is a column's, in whose order its index counts them.
    unsure = runs.c.status.in_(UNSURE)
    sure = sa.select(runs.c.status, sa.func.count()).where(condition, sa.not_(unsure))
    fit = sa.select(STATUS.label("status")).where(condition, unsure).subquery()
    counts: Counter[str] = Counter()
    for statement in (
        sure.group_by(runs.c.status),
        sa.select(fit.c.status, sa.func.count()).group_by(fit.c.status),
    ):
        for status, number in connection.execute(statement):
            counts[status] += number
    return counts


def changed(connection: Connection, query: str, seen: dict[str, tuple[float, str]]) -> list[RunRow]:
    """Return the runs that fit a query and have changed, or been lost, since they were seen.

    Args:
        connection: a transaction.
        query: the query.
        seen: when each run had changed, and how it stood; it is updated.

    Raises:
        QueryError: the query does not parse.
    """
    node = parse(query, time.time())
    moments = connection.execute(sa.select(runs.c.key, runs.c.updated, STATUS))
    new = {key: (at, status) for key, at, status in moments if seen.get(key) != (at, status)}
    keys = sorted(new, key=lambda key: new[key][0])
    found: list[RunRow] = []
    for at in range(0, len(keys), 500):
        some = _SELECT.where(runs.c.key.in_(keys[at : at + 500]))
        found += tables.read(connection, connection.execute(some.order_by(runs.c.updated)).all())
    seen.update(new)
    return [row for row in found if matches(node, row)]
