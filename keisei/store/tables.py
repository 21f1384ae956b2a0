"""Rows of runs in the registry's tables: how one is written, and how it is read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from keisei.store.rows import MetricSummary, RunRow
from keisei.store.schema import metrics, runs, tags

_PLAIN = (
    *("name", "directory", "session_id", "status", "attempt", "host", "pid", "started", "ended"),
    *("duration_s", "failure", "note"),
)
_JSON = ("config", "trackers", "checkpoints")
_BATCH = 500  # keys in one statement: SQLite takes so many parameters everywhere


@dataclass(frozen=True)
class Entry:
    """A run as the registry keeps it.

    Attributes:
        row: the run.
        updated: when that was so, in seconds since the epoch.
    """

    row: RunRow
    updated: float

    @property
    def key(self) -> str:
        """What the run is known by: its session id, or its directory where it has none."""
        return self.row.session_id or self.row.directory


def write(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write runs, each in place of what was known of it; an older word changes nothing.

    Args:
        connection: a transaction that writes.
        entries: the runs, each key once.
    """
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(runs)
    changed = {c.name: insert.excluded[c.name] for c in runs.c if c.name != "key"}
    statement = insert.on_conflict_do_update(
        index_elements=[runs.c.key], set_=changed, where=runs.c.updated <= insert.excluded.updated
    )
    connection.execute(statement, [_values(entry) for entry in entries])
    keys = [entry.key for entry in entries]
    for table, values in ((tags, _tags(entries)), (metrics, _metrics(entries))):
        for batch in _batches(keys):
            connection.execute(sa.delete(table).where(table.c.key.in_(batch)))
        if values:
            connection.execute(sa.insert(table), values)


def forget(connection: Connection, keys: Iterable[str]) -> None:
    """Remove runs.

    Args:
        connection: a transaction that writes.
        keys: the runs' keys.
    """
    for batch in _batches(list(keys)):
        connection.execute(sa.delete(runs).where(runs.c.key.in_(batch)))


def forget_directory(connection: Connection, directory: str) -> None:
    """Remove the run in a directory.

    Args:
        connection: a transaction that writes.
        directory: the directory's absolute path.
    """
    connection.execute(sa.delete(runs).where(runs.c.directory == _storable(directory)))


def read(connection: Connection, found: Sequence[sa.Row[Any]]) -> list[RunRow]:
    """Return the rows of runs that were selected from the table `runs`.

    Args:
        connection: the transaction.
        found: rows with all columns of the table.
    """
    keys = [one.key for one in found]
    own_tags: dict[str, list[str]] = {key: [] for key in keys}
    own_metrics: dict[str, dict[str, MetricSummary]] = {key: {} for key in keys}
    for batch in _batches(keys):
        for key, tag in connection.execute(sa.select(tags).where(tags.c.key.in_(batch))):
            own_tags[key].append(tag)
        for one in connection.execute(sa.select(metrics).where(metrics.c.key.in_(batch))):
            key, name, *numbers = one
            own_metrics[key][name] = MetricSummary(*numbers)
    return [_row(one, tuple(sorted(own_tags[one.key])), own_metrics[one.key]) for one in found]


def _row(
    one: sa.Row[Any], its_tags: tuple[str, ...], its_metrics: dict[str, MetricSummary]
) -> RunRow:
    known: dict[str, Any] = {name: getattr(one, name) for name in _PLAIN}
    known |= {name: _mapping(getattr(one, name)) for name in _JSON}
    return RunRow(**known, tags=its_tags, metrics=its_metrics)


def _values(entry: Entry) -> dict[str, Any]:
    row = entry.row
    plain = {name: _storable(getattr(row, name)) for name in _PLAIN}
    texts = {name: json.dumps(dict(getattr(row, name))).replace("\\u0000", "") for name in _JSON}
    root = os.path.dirname(row.directory)
    return {
        **plain,
        **texts,
        "key": _storable(entry.key),
        "root": _storable(root),
        "facts": "{}",
        "updated": entry.updated,
    }


def _tags(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {"key": entry.key, "tag": _storable(tag)} for entry in entries for tag in entry.row.tags
    ]


def _metrics(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in entries:
        for name, metric in entry.row.metrics.items():
            text = str(_storable(name))
            step = metric.step
            if step is not None and not -(2**63) <= step < 2**63:
                step = None
            found[entry.key, text] = {
                "key": entry.key,
                "name": text,
                **asdict(metric),
                "step": step,
            }
    return list(found.values())


def _storable(value: object) -> object:
    """Return a text that every database takes: without NUL, and with lone surrogates escaped."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "").encode(errors="backslashreplace").decode()


def _mapping(text: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        data = json.loads(text)
        if isinstance(data, dict):
            return data
    return {}


def _batches(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[at : at + _BATCH] for at in range(0, len(keys), _BATCH))
