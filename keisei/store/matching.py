"""What a query means for one run: whether its conditions hold."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from keisei.store.query import AllOf, AnyOf, Condition, Node, Not, Operator, number_in
from keisei.store.rows import RunRow

_COMPARE: dict[Operator, Callable[[float, float], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def matches(node: Node, row: RunRow) -> bool:
    """Return whether a run fits a query.

    What a run does not have fits no condition, except `!=`.

    Args:
        node: the query's tree.
        row: the run.
    """
    if isinstance(node, AllOf):
        return all(matches(part, row) for part in node.parts)
    if isinstance(node, AnyOf):
        return any(matches(part, row) for part in node.parts)
    if isinstance(node, Not):
        return not matches(node.part, row)
    if node.operator == "!=":
        return not any(_fits(node, "=", found) for found in _found(node, row))
    return any(_fits(node, node.operator, found) for found in _found(node, row))


def _fits(condition: Condition, operator: Operator, found: object) -> bool:
    return any(_compares(operator, found, wanted) for wanted in condition.values)


def _compares(operator: Operator, found: object, wanted: str | float) -> bool:
    """Return whether a value fits: numbers as numbers, else texts without regard to case."""
    number = wanted if isinstance(wanted, float) else number_in(wanted)
    if isinstance(found, bool) or found is None:
        found = {True: "true", False: "false", None: "null"}[found]
    if isinstance(found, int | float) and number is not None:
        return _COMPARE[operator](_float(found), number)
    if isinstance(wanted, float) or operator != "=":
        own = number_in(found) if isinstance(found, str) else None
        return own is not None and number is not None and _COMPARE[operator](own, number)
    return wildcard(wanted).fullmatch(str(found)) is not None


def _found(condition: Condition, row: RunRow) -> Iterator[object]:
    """Yield the values of a run that a condition is about."""
    if condition.kind == "metric":
        metric = row.metrics.get(condition.name)
        value = None if metric is None else getattr(metric, condition.part)
        if value is not None and not (isinstance(value, float) and math.isnan(value)):
            yield value
    elif condition.kind == "config":
        for value in in_config(row.config, condition.name):
            yield from value if isinstance(value, list) else [value]
    else:
        yield from fields_of(row, condition.name)


def fields_of(row: RunRow, name: str) -> Iterator[object]:
    """Yield what a run has of a field (`keisei.store.query.FIELDS`): of a tag, each."""
    values: dict[str, Callable[[], list[object]]] = {
        "name": lambda: [row.name],
        "id": lambda: [row.session_id],
        "status": lambda: [row.status],
        "attempt": lambda: [row.attempt],
        "tag": lambda: [*row.tags],
        "note": lambda: [row.note],
        "host": lambda: [row.host],
        "failure": lambda: [row.failure],
        "tracker": lambda: [*row.trackers],
        "checkpoints": lambda: [row.checkpoints.get("count")],
        "latest_checkpoint": lambda: [row.checkpoints.get("latest")],
        "best_checkpoint": lambda: [row.checkpoints.get("best")],
        "cost": lambda: [row.cost.get("total")],
        "duration": lambda: [row.duration_s],
        "started": lambda: [row.started],
        "ended": lambda: [row.ended],
    }
    yield from (value for value in values[name]() if value is not None)


def in_config(config: Mapping[str, object], path: str) -> Iterator[object]:
    """Yield the value at a path in a config, whose names may hold dots themselves.

    Args:
        config: the config, or a part of it.
        path: the names, with dots between them.
    """
    if path in config:
        yield config[path]
        return
    for key, inner in config.items():
        if isinstance(inner, Mapping) and path.startswith(f"{key}."):
            yield from in_config(inner, path[len(key) + 1 :])


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer that is too large for one
        return math.inf if value > 0 else -math.inf


@lru_cache(maxsize=256)
def wildcard(text: str) -> re.Pattern[str]:
    """Return the pattern of a text with `*` and `?`, without regard to the case of A to Z."""
    parts = [{"*": ".*", "?": "."}.get(char, re.escape(char)) for char in text]
    return re.compile(
        re.sub(r"(\.\*)+", ".*", "".join(parts)), re.IGNORECASE | re.ASCII | re.DOTALL
    )
