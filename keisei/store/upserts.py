"""An insert that can also update, in the dialect of its database, of which no other is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert


def insert_into(connection: Connection, table: sa.Table) -> Insert:
    """Return an insert into a table that takes `on_conflict_do_update`.

    Args:
        connection: a connection to the database.
        table: the table.
    """
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)  # type: ignore[return-value]
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
