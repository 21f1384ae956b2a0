"""The query language for runs: a text becomes a tree of conditions.

    query      any, all of which have to hold: `status:failed tag:ppo`
    condition  FIELD OPERATOR VALUE, or a word that the run's name contains
    together   `and` (or nothing), `or`, `not`, parentheses; `not` binds closest, then `and`
    operator   `:` or `=` is one of, with `*` and `?` as wildcards; `!=`, `<`, `<=`, `>`, `>=`
    value      a word, or a text in quotes; several with commas: `status:failed,died`
    field      one of `FIELDS`; a part of a metric (`loss.last`, `train/loss.min`); else a path in
               the config (`env.seed`, or `config.env.seed`)

What a condition means for one run is in `keisei.store.matching`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from keisei.errors import QueryError, quoted

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Kind = Literal["field", "metric", "config"]

FIELDS: dict[str, str] = {
    "name": "the run's name",
    "id": "its session id",
    "status": "how it stands: running, elsewhere, lost, died, or how it ended",
    "attempt": "how often it was started",
    "tag": "one of its tags",
    "note": "its note; `:` holds where it contains the text",
    "host": "the host of its last owner",
    "failure": "why it failed; `:` holds where it contains the text",
    "tracker": "one of its trackers",
    "checkpoints": "how many checkpoints it has: `checkpoints>0`",
    "latest_checkpoint": "the step of the latest",
    "best_checkpoint": "the step of the best",
    "cost": "what it has cost, in its own currency: `cost>10`",
    "duration": "how long it took, or has taken: `duration>2h`",
    "started": "when it was started: `started>2026-11-01`",
    "ended": "when it ended",
    "since": "started no longer ago than that, or not before that day: `since:7d`",
    "before": "started longer ago than that, or before that day",
}
NUMBERS = (
    "attempt",
    "checkpoints",
    "latest_checkpoint",
    "best_checkpoint",
    "cost",
)  # among the fields
METRIC_PARTS = ("last", "min", "max", "mean", "best", "count", "step")
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

LONGEST = 10_000  # characters of a query
DEEPEST = 100  # parentheses in parentheses

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<paren>[()])
      | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<operator>!=|<=|>=|[:=<>])
      | (?P<comma>,)
      | (?P<word>[^\s()"':=<>!,]+|!)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Condition:
    """A field, an operator and the values of which one has to fit.

    Attributes:
        kind: whether it asks for a field of the run, a metric or a value of the config.
        name: the field, the metric's name, or the path in the config.
        part: of a metric, which of its numbers; else empty.
        operator: how to compare.
        values: what to compare with: texts; of a number, a duration (in seconds) and a time (in
            seconds since the epoch) floats.
        column: where it stands in the query, counted from 0.
    """

    kind: Kind
    name: str
    part: str
    operator: Operator
    values: tuple[str, ...] | tuple[float, ...]
    column: int


@dataclass(frozen=True)
class AllOf:
    """Holds where each of its parts holds; without any, always."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class AnyOf:
    """Holds where one of its parts holds."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    """Holds where its part does not."""

    part: Node


Node = Condition | AllOf | AnyOf | Not


def parse(text: str, now: float) -> Node:
    """Return the tree of a query.

    Args:
        text: the query; an empty one holds for every run.
        now: the time that `since:7d` counts back from, in seconds since the epoch.

    Raises:
        QueryError: it is no query; the message points at the character.
    """
    if len(text) > LONGEST:
        raise QueryError(f"a query of {len(text):,} characters is too long: at most {LONGEST:,}")
    return _Parser(text, now).query()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    column: int
    end: int


class _Parser:
    def __init__(self, text: str, now: float) -> None:
        self._text, self._now = text, now
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0

    def query(self) -> Node:
        node = AllOf(()) if self._peek() is None else self._any()
        if (left := self._peek()) is not None:
            raise self._error("there is nothing that this closes", left.column)
        return node

    def _split(self) -> list[_Token]:
        tokens, at = [], 0
        while at < len(self._text.rstrip()):
            match = _TOKEN.match(self._text, at)
            if match is None:
                column = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._error("a text in quotes is not closed", column)
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match[kind], match.start(kind), match.end()))
            at = match.end()
        return tokens

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _is(self, *words: str) -> bool:
        token = self._peek()
        return token is not None and token.kind == "word" and token.text.lower() in words

    def _any(self) -> Node:
        parts = [self._all()]
        while self._is("or"):
            self._take()
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _all(self) -> Node:
        parts = [self._one()]
        while (token := self._peek()) is not None and token.text != ")" and not self._is("or"):
            if self._is("and"):
                self._take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _one(self) -> Node:
        token = self._peek()
        if token is None:
            raise self._error("a condition is missing at the end", len(self._text))
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error(f"it is more than {DEEPEST} levels deep", token.column)
        try:
            if self._is("not"):
                self._take()
                return Not(self._one())
            if token.text == "(" and token.kind == "paren":
                self._take()
                node = self._any()
                closing = self._peek()
                if closing is None or closing.text != ")":
                    raise self._error("this parenthesis is not closed", token.column)
                self._take()
                return node
            return self._condition()
        finally:
            self._depth -= 1

    def _condition(self) -> Condition:
        field = self._take()
        if field.kind not in ("word", "quoted") or self._is_connective(field):
            raise self._error("a condition is missing here", field.column)
        operator = self._peek()
        if operator is None or operator.kind != "operator":
            word = _unquoted(field)
            return Condition("field", "name", "", "=", (f"*{word}*",), field.column)
        self._take()
        values = tuple(self._values(operator))
        sign: Operator = "=" if operator.text == ":" else operator.text  # type: ignore[assignment]
        if len(values) > 1 and sign not in ("=", "!="):
            raise self._error(f"{operator.text} compares with one value", operator.column)
        return self._checked(_unquoted(field), sign, values, field, operator)

    def _values(self, operator: _Token) -> list[str]:
        values: list[str] = []
        while True:
            token = self._peek()
            if token is None or token.kind not in ("word", "quoted"):
                raise self._error("a value is missing here", operator.end)
            values.append(self._value())
            following = self._peek()
            if following is None or following.kind != "comma":
                return values
            operator = self._take()

    def _value(self) -> str:
        """Take a value; a word may hold `:` and `=`, as a time and a URL do."""
        token = self._take()
        text, end = _unquoted(token), token.end
        while (more := self._peek()) is not None and token.kind == "word":
            if more.column != end or more.kind not in ("word", "operator") or more.text in "<>":
                break
            self._take()
            text, end = text + more.text, more.end
        return text

    def _is_connective(self, token: _Token) -> bool:
        return token.kind == "word" and token.text.lower() in ("and", "or")

    def _checked(
        self,
        name: str,
        sign: Operator,
        values: tuple[str, ...],
        field: _Token,
        operator: _Token,
    ) -> Condition:
        lower = name.lower()
        if lower in FIELDS:
            return self._of_field(lower, sign, values, field, operator)
        metric, _, part = name.rpartition(".")
        if not lower.startswith("config.") and metric and part in METRIC_PARTS:
            numbers = tuple(self._number(value, operator) for value in values)
            return Condition("metric", metric, part, sign, numbers, field.column)
        if "." in name:
            path = name[len("config.") :] if lower.startswith("config.") else name
            return Condition("config", path, "", sign, values, field.column)
        raise self._error(
            f"there is no field {quoted(name)}: use {', '.join(FIELDS)}, a part of a metric "
            f"({name}.last), or a path in the config (config.{name})",
            field.column,
        )

    def _of_field(
        self,
        name: str,
        sign: Operator,
        values: tuple[str, ...],
        field: _Token,
        operator: _Token,
    ) -> Condition:
        if name in ("since", "before"):
            if operator.text not in (":", "=") or len(values) > 1:
                raise self._error(f"write {name}:7d, or {name}:2026-11-01", operator.column)
            name, sign = "started", ">=" if name == "since" else "<"
        if name in ("started", "ended"):
            times = tuple(self._time(value, operator) for value in values)
            return Condition("field", name, "", sign, times, field.column)
        if name == "duration":
            lengths = tuple(self._duration(value, operator) for value in values)
            return Condition("field", name, "", sign, lengths, field.column)
        if name in NUMBERS:
            numbers = tuple(self._number(value, operator) for value in values)
            return Condition("field", name, "", sign, numbers, field.column)
        if sign not in ("=", "!="):
            raise self._error(f"{name} has no order: use `:` or `!=`", operator.column)
        if name in ("note", "failure"):
            values = tuple(f"*{value}*" for value in values)
        return Condition("field", name, "", sign, values, field.column)

    def _number(self, value: str, operator: _Token) -> float:
        number = number_in(value)
        if number is None:
            raise self._error(f"{quoted(value)} is no number", operator.end)
        return number

    def _duration(self, value: str, operator: _Token) -> float:
        length = _seconds(value)
        if length is None:
            raise self._error(f"{quoted(value)} is no duration such as 90s, 2h or 7d", operator.end)
        return length

    def _time(self, value: str, operator: _Token) -> float:
        if (age := _seconds(value)) is not None and value[-1] in UNITS:
            return self._now - age
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            problem = f"{quoted(value)} is no time such as 2026-11-01, nor an age such as 7d"
            raise self._error(problem, operator.end) from None

    def _error(self, problem: str, column: int) -> QueryError:
        return QueryError(
            f"{problem}, at character {column + 1} of the query {quoted(self._text, 500)}",
            column=column,
        )


def _unquoted(token: _Token) -> str:
    if token.kind != "quoted":
        return token.text
    return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)


def number_in(text: str) -> float | None:
    """Return the number that a text says; ``None`` where it says none."""
    try:
        return float(text)
    except ValueError:
        return None


def _seconds(text: str) -> float | None:
    """Return the seconds of a duration such as `90`, `90s`, `1.5h` or `7d`."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw]?)", text)
    return None if match is None else float(match[1]) * UNITS.get(match[2], 1.0)
