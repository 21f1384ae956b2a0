"""Many rows in one statement, by their keys: what is asked for a list of runs, and written of many.

Each statement has one parameter for all keys, or one array for each column, so that neither its
text nor the work of making it grows with the number of rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

_ARRAYS = {sa.Text: "text[]", sa.Double: "float8[]", sa.BigInteger: "int8[]", sa.Integer: "int4[]"}


def select(
    connection: Connection, columns: tuple[sa.Column[Any], ...], keys: Sequence[str]
) -> Sequence[Any]:
    """Return the rows of some runs from a table.

    Args:
        connection: a transaction.
        columns: the columns, of one table.
        keys: the runs' keys.
    """
    if not keys:
        return []
    return connection.execute(
        _select(columns, _is_postgres(connection)), _asked(connection, keys)
    ).all()


def delete(connection: Connection, table: sa.Table, keys: Sequence[str]) -> None:
    """Delete the rows of some runs.

    Args:
        connection: a transaction that writes.
        table: the table.
        keys: the runs' keys.
    """
    if keys:
        statement = _delete(table, _is_postgres(connection))
        connection.execute(statement, _asked(connection, keys))


def insert(
    connection: Connection,
    table: sa.Table,
    rows: Sequence[dict[str, Any]],
    replaces: str | None = None,
) -> None:
    """Insert rows.

    Args:
        connection: a transaction that writes.
        table: the table.
        rows: the values of its columns, each key once.
        replaces: the column by which a row replaces one of its key: where it is not less.
    """
    if not rows:
        return
    statement = _insert(table, replaces, _is_postgres(connection))
    if _is_postgres(connection):
        connection.execute(statement, {c.name: [row[c.name] for row in rows] for c in table.c})
    else:
        connection.execute(statement, rows)


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _asked(connection: Connection, keys: Sequence[str]) -> dict[str, Any]:
    return {"keys": list(keys) if _is_postgres(connection) else json.dumps(keys)}


def _among(postgres: bool) -> str:
    return "= ANY(:keys)" if postgres else "IN (SELECT value FROM json_each(:keys))"


@lru_cache
def _select(columns: tuple[sa.Column[Any], ...], postgres: bool) -> sa.TextClause:
    names = ", ".join(f'"{column.name}"' for column in columns)
    return sa.text(f'SELECT {names} FROM {columns[0].table} WHERE "key" {_among(postgres)}')


@lru_cache
def _delete(table: sa.Table, postgres: bool) -> sa.TextClause:
    return sa.text(f'DELETE FROM {table.name} WHERE "key" {_among(postgres)}')


@lru_cache
def _insert(table: sa.Table, replaces: str | None, postgres: bool) -> sa.TextClause:
    names = ", ".join(f'"{column.name}"' for column in table.c)
    if postgres:
        arrays = (f"CAST(:{c.name} AS {_ARRAYS[type(c.type)]})" for c in table.c)
        values = f"SELECT * FROM unnest({', '.join(arrays)})"
    else:
        values = f"VALUES ({', '.join(f':{column.name}' for column in table.c)})"
    text = f"INSERT INTO {table.name} ({names}) {values}"
    if replaces is not None:
        changed = ", ".join(f'"{c.name}" = excluded."{c.name}"' for c in table.c if c.name != "key")
        newer = f"{table.name}.{replaces} <= excluded.{replaces}"
        text += f' ON CONFLICT ("key") DO UPDATE SET {changed} WHERE {newer}'
    return sa.text(text)
