"""The registry's tables, and the numbered migrations that make them.

A migration is a list of statements that both SQLite and Postgres understand; it runs in one
transaction together with its number. A released one is never changed: what comes next is a new
one. `READABLE_BY` says which version of the schema a reader needs to know at least.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.schema import CreateIndex, CreateTable, DropIndex, ExecutableDDLElement

VERSION = 5  # of the schema that this keisei writes
READABLE_BY = {
    1: 1,
    2: 1,
    3: 1,
    4: 1,
    5: 1,
}  # by version: the oldest one whose readers understand it

metadata = MetaData()

schema = Table(
    "keisei_schema",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1: there is one row
    Column("version", Integer, nullable=False),
    Column("readable_by", Integer, nullable=False),
    Column("registry", Text, nullable=False),  # the registry's own id, a ULID
)


def _table_of_runs(metadata: MetaData, *later: Column[Any]) -> Table:
    """Return the table of runs as the first version has it, and with what came later."""
    return Table(
        "keisei_runs",
        metadata,
        Column("key", Text, primary_key=True),  # the session id; of a run without one its directory
        Column("name", Text, nullable=False),
        Column("directory", Text, nullable=False),
        Column("root", Text, nullable=False),
        Column("session_id", Text),
        Column("status", Text, nullable=False),
        Column("attempt", Integer),
        Column("host", Text),
        Column("pid", BigInteger),
        Column("started", Double),
        Column("ended", Double),
        Column("duration_s", Double),
        Column("failure", Text),
        Column("note", Text),
        Column("config", Text, nullable=False),  # JSON, as the three after it
        Column("trackers", Text, nullable=False),
        Column("checkpoints", Text, nullable=False),
        Column("facts", Text, nullable=False),  # what later versions add to a row
        Column("updated", Double, nullable=False),
        *later,
    )


# In the order in which the migrations have added them.
runs = _table_of_runs(metadata, Column("cost", Double))  # in the run's own currency
by_start = Index("keisei_runs_started", runs.c.started.desc(), runs.c.key)
by_name = Index("keisei_runs_name", runs.c.name)
by_directory = Index("keisei_runs_directory", runs.c.directory)
# With all that says how a run stands, so that runs are counted without a look at their rows.
by_status = Index("keisei_runs_status", runs.c.status, runs.c.session_id, runs.c.attempt)

tags = Table(
    "keisei_tags",
    metadata,
    Column("key", Text, ForeignKey(runs.c.key, ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),
)
by_tag = Index("keisei_tags_tag", tags.c.tag)

metrics = Table(
    "keisei_metrics",
    metadata,
    Column("key", Text, ForeignKey(runs.c.key, ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("last", Double),
    Column("min", Double),
    Column("max", Double),
    Column("mean", Double),
    Column("best", Double),
    Column("count", BigInteger, nullable=False),
    Column("step", BigInteger),
)
by_metric = Index("keisei_metrics_name", metrics.c.name, metrics.c.last)

leases = Table(
    "keisei_leases",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),  # each owner of a run has a larger one
    Column("owner", Text, nullable=False),  # JSON
    Column("expires", Double, nullable=False),  # by the database's clock
    Column("ttl", Double, nullable=False),
    Column("clock", Text, nullable=False),  # from which boot it counts
    Column("released", Integer, nullable=False),
)

launches = Table(
    "keisei_launches",
    metadata,
    Column("key", Text, primary_key=True),  # identity, start and session, as in the file's name
    Column("owner", Text, nullable=False),  # JSON: the process that is rank 0
    Column("agreement", Text, nullable=False),  # JSON: what it has published
    Column("session_id", Text),  # its run's, once it has one
    Column("is_over", Integer, nullable=False),  # 1: it has no run
    Column("new_until", Double, nullable=False),  # by the database's clock
    Column("clock", Text, nullable=False),  # from which boot it counts
    Column("updated", Double, nullable=False),
)

_TABLES = [schema, _table_of_runs(MetaData()), tags, metrics]
_INDEXES = [by_start, by_name, by_directory, by_tag, by_metric]
MIGRATIONS: dict[int, list[ExecutableDDLElement]] = {
    1: [*map(CreateTable, _TABLES), *map(CreateIndex, _INDEXES)],
    2: [CreateTable(leases)],
    # Nobody asks by a metric's value alone, and each row of a run would write this index anew.
    3: [CreateIndex(by_status, if_not_exists=True), DropIndex(by_metric, if_exists=True)],
    4: [CreateTable(launches, if_not_exists=True)],
    5: [DDL("ALTER TABLE keisei_runs ADD COLUMN cost DOUBLE PRECISION")],  # type: ignore[no-untyped-call]
}
