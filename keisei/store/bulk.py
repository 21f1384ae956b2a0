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


def upsert(
    connection: Connection,
    table: sa.Table,
    rows: Sequence[tuple[Any, ...]],
    newer_by: tuple[str, ...] = (),
) -> None:
    """Insert rows, each in place of the one that has its primary key.

    Args:
        connection: a transaction that writes.
        table: the table.
        rows: the values of its columns, in their order, each key once.
        newer_by: the columns by which a row is newer than the one that is there, the first that
            differs: with a lesser value it is left out. Without, each is newer.
    """
    if not rows:
        return
    statement = _upsert(table, newer_by, _is_postgres(connection))
    if _is_postgres(connection):
        connection.exec_driver_sql(statement, tuple(map(list, zip(*rows, strict=True))))
    else:
        connection.exec_driver_sql(statement, list(rows))


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
def _upsert(table: sa.Table, newer_by: tuple[str, ...], postgres: bool) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.c)
    key = [column.name for column in table.primary_key]
    if postgres:
        # Binary: as text, each number and name would be written and parsed one by one.
        arrays = (f"%b::{_ARRAYS[type(column.type)]}" for column in table.c)
        values = f"SELECT * FROM unnest({', '.join(arrays)})"
    else:
        values = f"VALUES ({', '.join('?' for _ in table.c)})"
    changed = ", ".join(f'"{c.name}" = excluded."{c.name}"' for c in table.c if c.name not in key)
    then = f"UPDATE SET {changed}" if changed else "NOTHING"
    if newer_by:
        pairs = [(f"{table.name}.{name}", f"excluded.{name}") for name in newer_by]
        # A column that is unknown in either row does not differ.
        whens = "".join(f" WHEN {a} < {b} THEN 1 WHEN {a} > {b} THEN 0" for a, b in pairs)
        then += f" WHERE CASE{whens} ELSE 1 END = 1"
    conflict = ", ".join(f'"{name}"' for name in key)
    return f"INSERT INTO {table.name} ({names}) {values} ON CONFLICT ({conflict}) DO {then}"
