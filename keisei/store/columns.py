"""The columns of a list of runs, by the names that the query language has for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keisei.errors import QueryError, quoted
from keisei.store.matching import in_config
from keisei.store.query import METRIC_PARTS
from keisei.store.rows import RunRow

DEFAULT = ("name", "status", "attempt", "started", "duration", "tags", "note")

_OF_RUN: dict[str, Callable[[RunRow], object]] = {
    "name": lambda row: row.name,
    "id": lambda row: row.session_id,
    "status": lambda row: row.status,
    "attempt": lambda row: row.attempt,
    "tags": lambda row: list(row.tags) or None,
    "note": lambda row: row.note,
    "host": lambda row: row.host,
    "pid": lambda row: row.pid,
    "failure": lambda row: row.failure,
    "trackers": lambda row: sorted(row.trackers) or None,
    "checkpoints": lambda row: row.checkpoints.get("count"),
    "latest_checkpoint": lambda row: row.checkpoints.get("latest"),
    "best_checkpoint": lambda row: row.checkpoints.get("best"),
    "cost": lambda row: row.cost.get("total"),
    "duration": lambda row: row.duration_s,
    "started": lambda row: row.started,
    "ended": lambda row: row.ended,
    "directory": lambda row: row.directory,
}
_SINGULAR = {"tag": "tags", "tracker": "trackers"}


def check_column(name: str) -> str:
    """Return a column's full name.

    Raises:
        QueryError: there is no such column; the message lists them.
    """
    lower = _SINGULAR.get(name.lower(), name.lower())
    if lower in _OF_RUN:
        return lower
    if "." in name.strip("."):
        return name
    raise QueryError(
        f"there is no column {quoted(name)}: use {', '.join(_OF_RUN)}, a part of a metric "
        f"({name}.last), or a path in the config (config.{name})"
    )


def value_of(row: RunRow, name: str) -> object:
    """Return what a run has in a column; ``None`` where it has nothing.

    Args:
        row: the run.
        name: the column, as `check_column` returns it.
    """
    if name in _OF_RUN:
        return _OF_RUN[name](row)
    if (metric := _metric(name)) is not None:
        summary = row.metrics.get(metric[0])
        return None if summary is None else getattr(summary, metric[1])
    return next(in_config(row.config, name.removeprefix("config.")), None)


def ordered(rows: Iterable[RunRow], order_by: str) -> list[RunRow]:
    """Return the rows in the order of a column; those that have nothing in it come last.

    Args:
        rows: the rows.
        order_by: the column; with `-` before it, the largest comes first.

    Raises:
        QueryError: there is no such column.
    """
    name = check_column(order_by.removeprefix("-"))
    by_name = sorted(rows, key=lambda row: row.name)
    there = [(key, row) for row in by_name if (key := _key(value_of(row, name))) is not None]
    missing = [row for row in by_name if _key(value_of(row, name)) is None]
    there.sort(key=lambda pair: pair[0], reverse=order_by.startswith("-"))
    return [row for _, row in there] + missing


def _key(value: object) -> tuple[int, float, str] | None:
    """Return by what a value is sorted: numbers before texts."""
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, bool | int | float):
        return 0, value, ""
    return 1, 0.0, str(value).casefold()


def _metric(name: str) -> tuple[str, str] | None:
    metric, _, part = name.rpartition(".")
    is_one = metric and part in METRIC_PARTS and not name.startswith("config.")
    return (metric, part) if is_one else None
