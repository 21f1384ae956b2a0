"""The clock of a registry's database, as SQL: its own in Postgres, the machine's for SQLite."""

from __future__ import annotations

import sqlite3
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from keisei._io import process


class now(FunctionElement[float]):
    """The database's time, in seconds."""

    type = sa.Double()
    inherit_cache = True


class boot(FunctionElement[str]):
    """Which boot of the machine that time is counted from; empty where it is counted from none."""

    type = sa.Text()
    inherit_cache = True


def prepare(connection: sqlite3.Connection) -> None:
    """Teach a connection of SQLite the two functions."""
    connection.create_function("keisei_now", 0, process.since_boot)
    connection.create_function("keisei_boot", 0, process.kernel)


@compiles(now, "sqlite")
def _now(element: now, compiler: Any, **options: Any) -> str:
    return "keisei_now()"


@compiles(now, "postgresql")
def _now_in_postgres(element: now, compiler: Any, **options: Any) -> str:
    return "(extract(epoch from clock_timestamp())::double precision)"


@compiles(boot, "sqlite")
def _boot(element: boot, compiler: Any, **options: Any) -> str:
    return "keisei_boot()"


@compiles(boot, "postgresql")
def _boot_in_postgres(element: boot, compiler: Any, **options: Any) -> str:
    return "''"
