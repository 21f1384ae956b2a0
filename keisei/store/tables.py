"""Rows of runs in the registry's tables: how one is written, and how it is read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keisei.store import bulk
from keisei.store.rows import Lazily, MetricSummary, RunRow
from keisei.store.schema import metrics, runs, tags

_UPDATED = (runs.c.key, runs.c.updated)
_TAGS, _METRICS = tuple(tags.c), tuple(metrics.c)


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
        return str(_storable(self.row.session_id or self.row.directory))


def write(connection: Connection, entries: Sequence[Entry], *, anew: bool = False) -> None:
    """Write runs, each in place of what was known of it; an older word changes nothing.

    A later attempt's word is the newer one, whatever the clocks of two hosts say: that of an
    earlier one may come from a process that was stopped meanwhile.

    Args:
        connection: a transaction that writes.
        entries: the runs, each key once.
        anew: whether a directory that has gone back to an earlier attempt is believed.
    """
    newer_by = ("updated",) if anew else ("attempt", "updated")
    bulk.upsert(connection, runs, [_values(entry) for entry in entries], newer_by=newer_by)
    keys = [entry.key for entry in entries]
    written = {key: updated for key, updated in bulk.select(connection, _UPDATED, keys)}  # noqa: C416
    entries = [entry for entry in entries if written.get(entry.key) == entry.updated]
    _replace(connection, tags, _tags(entries), entries)
    _replace(connection, metrics, _metrics(entries), entries)


def _replace(
    connection: Connection,
    table: sa.Table,
    values: list[tuple[Any, ...]],
    entries: Sequence[Entry],
) -> None:
    """Write what runs have of a table, and delete what they do not have any more."""
    columns = tuple(table.primary_key)
    there = {tuple(one) for one in bulk.select(connection, columns, [one.key for one in entries])}
    left = there - {one[:2] for one in values}
    if left:
        gone = sa.and_(*(column == sa.bindparam(f"b_{column.name}") for column in columns))
        keys = [{f"b_{c.name}": v for c, v in zip(columns, one, strict=True)} for one in left]
        connection.execute(sa.delete(table).where(gone), keys)
    if len(columns) == len(table.c):  # a key is all that there is of it
        values = [one for one in values if one not in there]
    bulk.upsert(connection, table, values)


def forget(connection: Connection, keys: Iterable[str]) -> None:
    """Remove runs.

    Args:
        connection: a transaction that writes.
        keys: the runs' keys.
    """
    bulk.delete(connection, runs, list(keys))


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
        found: rows with all columns of the table, in its order.
    """
    keys = [one.key for one in found]
    own_tags: dict[str, list[str]] = {key: [] for key in keys}
    own_metrics: dict[str, dict[str, MetricSummary]] = {key: {} for key in keys}
    for key, tag in bulk.select(connection, _TAGS, keys):
        own_tags[key].append(tag)
    for key, name, *numbers in bulk.select(connection, _METRICS, keys):
        own_metrics[key][name] = MetricSummary(*numbers)
    return [_row(one, tuple(sorted(own_tags[one.key])), own_metrics[one.key]) for one in found]


def _row(
    one: sa.Row[Any], its_tags: tuple[str, ...], its_metrics: dict[str, MetricSummary]
) -> RunRow:
    # By position: of fifty rows, fetching each column by its name would take longest of all.
    values: list[Any] = list(one)
    _, name, directory, _, session_id, status, attempt, host, pid, *rest = values
    started, ended, duration_s, failure, note, config, trackers, checkpoints, facts, *_ = rest
    return RunRow(
        name,
        directory,
        session_id,
        status,
        attempt,
        host,
        pid,
        started,
        ended,
        duration_s,
        failure,
        its_tags,
        note,
        Lazily(partial(_mapping, config)),
        its_metrics,
        _mapping(trackers),
        _mapping(checkpoints),
        Lazily(partial(_cost, facts)),
    )


def _values(entry: Entry) -> tuple[Any, ...]:
    """Return the values of the columns of a run, in their order."""
    row = entry.row
    return (
        entry.key,
        _storable(row.name),
        _storable(row.directory),
        _storable(os.path.dirname(row.directory)),
        _storable(row.session_id),
        _storable(row.status),
        row.attempt,
        _storable(row.host),
        row.pid,
        row.started,
        row.ended,
        row.duration_s,
        _storable(row.failure),
        _storable(row.note),
        *(_json(part) for part in (row.config, row.trackers, row.checkpoints)),
        _json({"cost": dict(row.cost)} if row.cost else {}),
        entry.updated,
        _number(row.cost.get("total")),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _cost(facts: str) -> Mapping[str, object]:
    found = _mapping(facts).get("cost")
    return found if isinstance(found, dict) else {}


def _json(mapping: Mapping[str, object]) -> str:
    return json.dumps(dict(mapping)).replace("\\u0000", "") if mapping else "{}"


def _tags(entries: Sequence[Entry]) -> list[tuple[Any, ...]]:
    return [(entry.key, _storable(tag)) for entry in entries for tag in entry.row.tags]


def _metrics(entries: Sequence[Entry]) -> list[tuple[Any, ...]]:
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for entry in entries:
        key = entry.key
        for name, one in entry.row.metrics.items():
            text = str(_storable(name))
            step = one.step
            if step is not None and not -(2**63) <= step < 2**63:
                step = None
            numbers = (one.last, one.min, one.max, one.mean, one.best, one.count, step)
            found[key, text] = (key, text, *numbers)
    return list(found.values())


def _storable(value: object) -> object:
    """Return a text that every database takes: without NUL, and with lone surrogates escaped."""
    if not isinstance(value, str):
        return value
    return value.replace("\0", "").encode(errors="backslashreplace").decode()


def _mapping(text: str) -> dict[str, Any]:
    if text == "{}":
        return {}
    with suppress(ValueError, RecursionError):
        data = json.loads(text)
        if isinstance(data, dict):
            return data
    return {}
