"""How rows, names and configs become what MLflow takes: plain functions, without MLflow."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keisei.journal.records import Row
from keisei.trackers.base import Position, Record

LONGEST_KEY = 250
LONGEST_VALUE = 5000  # of a tag; a param may have 6,000, of which this is enough

_LARGEST_STEP = 2**63 - 1
_LARGEST_TIME = 2**53
# MLflow takes letters, digits and these; a colon, which it refuses on Windows, counts as refused.
_REFUSED = re.compile(r"[^\w/\-. ]")
_LOOKS_ESCAPED = re.compile(r"_(?=x[0-9A-F]{4,6}_)|\A_(?=x_\Z)")
_EMPTY = "_x_"


@dataclass(frozen=True)
class Progress:
    """How far a run has got, which decides how its next records are written.

    MLflow takes a metric for one that it has got already where key, step, time in milliseconds
    and value are the same. So a record that comes again has to get the same step and time as
    before, and no two rows may share both: times never go back, and a row whose step is not above
    all earlier ones gets a time after all earlier ones. All of it follows from the records alone.

    Attributes:
        attempt: the attempt of the last record.
        seq: its number.
        time: the last time that a row got, in milliseconds since the epoch.
        top: the highest step that a row got.
        step: the last step that was logged, if any was.
    """

    attempt: int = 1
    seq: int = -1
    time: int = 0
    top: int = -1
    step: int | None = None

    @classmethod
    def parsed(cls, text: str | None) -> Progress:
        """Return what a tag says; the very beginning where there is no tag, or a damaged one."""
        try:
            attempt, seq, time, top, step = json.loads(text or "")
            return cls(int(attempt), int(seq), int(time), int(top), None if step is None else step)
        except (ValueError, TypeError):
            return cls()

    @property
    def text(self) -> str:
        """The text that `parsed` reads."""
        return json.dumps([self.attempt, self.seq, self.time, self.top, self.step])

    @property
    def position(self) -> Position:
        """The position of the last record."""
        return Position(self.attempt, self.seq)

    def after(self, record: Record) -> tuple[Progress, int]:
        """Return the progress after the next record, and the step that a row gets.

        A row without a step gets the last one that was logged, as in the journal; before the
        first one, such rows are counted.
        """
        if not isinstance(record, Row):
            return Progress(record.attempt, record.seq, self.time, self.top, self.step), 0
        logged = self.step
        if record.step is not None:
            logged = max(-_LARGEST_STEP, min(record.step, _LARGEST_STEP))
        step = self.top + 1 if logged is None else logged
        earliest = self.time if step > self.top else self.time + 1
        time = max(earliest, min(int(record.time * 1000), _LARGEST_TIME))
        return Progress(record.attempt, record.seq, time, max(self.top, step), logged), step


def mlflow_name(name: str) -> str:
    """Return the name under which MLflow keeps a metric or a param; no two share one.

    What MLflow refuses is written as ``_x003A_`` (a colon), with its code point in hexadecimal
    digits. What is longer than 250 characters is cut, and ends with a part of its hash.

    Args:
        name: the name as it was logged.
    """
    shown = _EMPTY if not name else _REFUSED.sub(_escaped, _LOOKS_ESCAPED.sub(_escaped, name))
    norm = posixpath.normpath(shown)
    if norm != shown or norm.startswith(("..", "/")) or norm == ".":  # a path that is another one
        shown = re.sub("[/.]", _escaped, shown)
    if len(shown) > LONGEST_KEY:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        shown = f"{shown[: LONGEST_KEY - 17]}-{digest}"
    return shown


def _escaped(match: re.Match[str]) -> str:
    return f"_x{ord(match[0]):04X}_"


def params(config_text: str) -> dict[str, str]:
    """Return a config as params: flat, with names joined by dots.

    Args:
        config_text: the config as JSON.
    """
    flat: dict[str, str] = {}
    _flatten(json.loads(config_text), "", flat)
    return flat


def _flatten(value: Any, name: str, flat: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            _flatten(inner, f"{name}.{key}" if name else key, flat)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        flat[mlflow_name(name)] = text[:LONGEST_VALUE]
