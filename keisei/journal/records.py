"""What is read of a journal: rows, events, positions among them, and what is damaged."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple

Value = float | int | bool
SYSTEM = "system/"  # begins the names of what the machine, and not the training, has logged


def is_system(keys: Collection[str]) -> bool:
    """Return whether a row is of what the run uses of its machine: it is no training metric.

    No resume supersedes it: what was used was used.
    """
    return bool(keys) and all(key.startswith(SYSTEM) for key in keys)


def of_part(part: str, key: str) -> str:
    """Return the name that a metric of a part has among the owner's: it is a system one still.

    Args:
        part: the part's name.
        key: the metric's own name.
    """
    if key.startswith(SYSTEM):
        return f"{SYSTEM}{part}/{key[len(SYSTEM) :]}"
    return f"{part}/{key}"


def as_float(value: Value) -> float:
    """Return a number as a float; an integer that is too large for one is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


class Row(NamedTuple):
    """A row, as it was logged.

    Attributes:
        seq: its number among the rows and events of its attempt.
        time: when it was logged, in seconds since the epoch.
        step: its training step, if it has one.
        attempt: the attempt that logged it.
        values: its numbers by name.
        superseded: whether a resumed run has left it behind, or logged it again.
    """

    seq: int
    time: float
    step: int | None
    attempt: int
    values: dict[str, Value]
    superseded: bool = False


class Event(NamedTuple):
    """An event, as it was logged.

    Attributes:
        seq: its number among the rows and events of its attempt.
        time: when it was logged, in seconds since the epoch.
        attempt: the attempt that logged it.
        name: what kind of event it is.
        data: what was said of it.
    """

    seq: int
    time: float
    attempt: int
    name: str
    data: object


class Media(NamedTuple):
    """A thing that a run keeps: an image, a video, a table or another file.

    Attributes:
        seq: the number of its event among the rows and events of its attempt.
        time: when it was logged, in seconds since the epoch.
        attempt: the attempt that logged it.
        kind: `image`, `figure`, `video`, `audio`, `histogram`, `table`, `text` or `file`.
        name: its name; one name may come again at other steps.
        step: its training step, if it has one.
        path: its file.
        size: the file's size in bytes.
        digest: the SHA-256 of the file, in hexadecimal.
        caption: what was said of it.
        about: what else is known of it, such as `width` and `height`.
        after: the number of the last record that was logged before it.
        superseded: whether a resumed run has left it behind, or logged it again.
    """

    seq: int
    time: float
    attempt: int
    kind: str
    name: str
    step: int | None
    path: str
    size: int
    digest: str
    caption: str | None
    about: dict[str, Any]
    after: int
    superseded: bool = False


class Position(NamedTuple):
    """A position in the journals of a run: behind the row or event with this number.

    Attributes:
        attempt: the attempt that logged it.
        seq: its number among the rows and events of that attempt, the first being 0.
    """

    attempt: int
    seq: int


class Damage(NamedTuple):
    """What cannot be read of a run's journals.

    Attributes:
        skipped: how many stretches between good blocks are unreadable.
        skipped_bytes: the bytes in them.
        torn_bytes: the bytes after the last good blocks: torn, or of a write under way.
        missing: how many rows and events are not there: dropped by the writer, or unreadable.
        unnamed: how many rows cannot be understood, because the names of their values are lost.
    """

    skipped: int = 0
    skipped_bytes: int = 0
    torn_bytes: int = 0
    missing: int = 0
    unnamed: int = 0
