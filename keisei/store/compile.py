"""A query as a condition of SQL, as far as SQL can say it exactly.

What it cannot say (of what a row holds as JSON: config, trackers, checkpoints) is left out where
that only widens the result, and the rest is checked by `keisei.store.matching` on the rows that
come back.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from keisei.store.lost import STATUS
from keisei.store.query import AllOf, AnyOf, Condition, Node, Not, Operator
from keisei.store.schema import metrics, runs, tags

_TEXTS = {
    "name": runs.c.name,
    "id": runs.c.session_id,
    "status": STATUS,
    "note": runs.c.note,
    "host": runs.c.host,
    "failure": runs.c.failure,
}
_NUMBERS = {
    "attempt": runs.c.attempt,
    "cost": runs.c.cost,
    "duration": runs.c.duration_s,
    "started": runs.c.started,
    "ended": runs.c.ended,
}
_IN_JSON = ("tracker", "checkpoints", "latest_checkpoint", "best_checkpoint")


class Compiled(NamedTuple):
    """A query's condition.

    Attributes:
        condition: what SQL checks; it holds for every run that fits the query.
        exact: whether it holds for no other.
    """

    condition: ColumnElement[bool]
    exact: bool


def compiled(node: Node) -> Compiled:
    """Return the condition of a query.

    Args:
        node: the query's tree.
    """
    if isinstance(node, AllOf):
        parts = [compiled(part) for part in node.parts]
        condition = sa.and_(sa.true(), *(part.condition for part in parts))
        return Compiled(condition, all(part.exact for part in parts))
    if isinstance(node, AnyOf):
        parts = [compiled(part) for part in node.parts]
        return Compiled(
            sa.or_(*(part.condition for part in parts)), all(part.exact for part in parts)
        )
    if isinstance(node, Not):
        inner = compiled(node.part)
        # Without what SQL cannot say, its opposite would leave out what fits.
        return Compiled(sa.not_(inner.condition) if inner.exact else sa.true(), inner.exact)
    return _condition(node)


def _condition(node: Condition) -> Compiled:
    if node.kind == "config" or (node.kind == "field" and node.name in _IN_JSON):
        return Compiled(sa.true(), False)
    negated = node.operator == "!="
    operator: Operator = "=" if negated else node.operator
    fits = sa.or_(*(_fits(node, operator, value) for value in node.values))
    return Compiled(sa.not_(fits) if negated else fits, True)


def _fits(node: Condition, operator: Operator, value: str | float) -> ColumnElement[bool]:
    """Return that one value fits; never null, so that its opposite is right, too."""
    if node.kind == "metric":
        column = metrics.c[node.part]
        return sa.exists().where(
            metrics.c.key == runs.c.key,
            metrics.c.name == node.name,
            _compares(column, operator, float(value)),
        )
    if node.name == "tag":
        return sa.exists().where(tags.c.key == runs.c.key, _like(tags.c.tag, str(value)))
    if node.name in _NUMBERS:
        return _compares(_NUMBERS[node.name], operator, float(value))
    return _like(_TEXTS[node.name], str(value))


def _compares(column: ColumnElement[Any], operator: Operator, value: float) -> ColumnElement[bool]:
    if math.isnan(value):
        return sa.false()
    ways = {
        "=": column == value,
        "<": column < value,
        "<=": column <= value,
        ">": column > value,
        ">=": column >= value,
    }
    return sa.and_(column.is_not(None), ways[operator])


def _like(column: ColumnElement[str], wanted: str) -> ColumnElement[bool]:
    """Return that a text fits one with `*` and `?`, without regard to the case of A to Z."""
    pattern = "".join({"*": "%", "?": "_"}.get(c, f"\\{c}" if c in "%_\\" else c) for c in wanted)
    if not _is_storable(pattern):
        return sa.false()
    return sa.and_(column.is_not(None), _Folded(column).like(folded(pattern), escape="\\"))


def folded(text: str) -> str:
    """Return a text with A to Z in lower case, as `_Folded` has it."""
    return "".join(c.lower() if "A" <= c <= "Z" else c for c in text)


def _is_storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


class _Folded(FunctionElement[str]):
    """A text with A to Z in lower case, whatever the database's locale."""

    type = sa.Text()
    inherit_cache = True


@compiles(_Folded)
def _folded(element: _Folded, compiler: Any, **options: Any) -> str:
    return f"lower({compiler.process(element.clauses, **options)})"  # SQLite knows ASCII alone


@compiles(_Folded, "postgresql")
def _folded_in_postgres(element: _Folded, compiler: Any, **options: Any) -> str:
    return f'lower({compiler.process(element.clauses, **options)} COLLATE "C")'
