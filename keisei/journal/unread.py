"""Rows of which a number may still be under computation: the writer's thread reads it, in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import time

from keisei._log import logger
from keisei.errors import describe, quoted
from keisei.journal.format import STORED, Record, dump
from keisei.journal.unredacted import UnredactedEvent
from keisei.journal.values import Number, Unread, exact_step

_MOST_SAID = 100


class Losses:
    """Warns of numbers that could not be read, of each metric once.

    Args:
        path: the journal's file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._said: set[str] = set()

    def say(self, key: str, step: int | None, exc: Exception) -> None:
        """Warn of one number.

        Args:
            key: the metric's name; empty where it is the step.
            step: the row's step, where it has one.
            exc: why it could not be read.
        """
        if key in self._said or len(self._said) >= _MOST_SAID:
            return
        self._said.add(key)
        at = "a row without a step" if step is None else f"step {step}"
        what = f"metric {quoted(key)} at {at}" if key else "the step of a row"
        instead = "NaN is recorded" if key else "the row has none"
        logger.warning(
            "%s could not be read when it was written to %s, and %s instead (this is said once): "
            "%s. Log the number before its buffer is donated or deleted, or log float(value)",
            what,
            quoted(self._path, 300),
            instead,
            describe(exc),
        )


class UnreadRow:
    """A row with numbers to be read.

    Args:
        shape: the id of its shape.
        keys: the names of its values.
        values: its numbers.
        step: its step.
        losses: hears of what cannot be read.
    """

    __slots__ = ("_keys", "_losses", "_shape", "_step", "_time", "_values")

    def __init__(
        self,
        shape: int,
        keys: tuple[str, ...],
        values: Sequence[object],
        step: int | Unread | None,
        losses: Losses,
    ) -> None:
        self._time = time()
        self._shape, self._keys, self._values = shape, keys, values
        self._step, self._losses = step, losses

    def packed(self) -> bytes:
        """Return the row as it is stored, as soon as its numbers are there; blocks."""
        step: int | None = None
        try:
            step = exact_step(self._step)
        except TypeError as exc:
            self._losses.say("", None, exc)
        values = [
            self._read(key, value, step)
            for key, value in zip(self._keys, self._values, strict=True)
        ]
        return dump([self._shape, self._time, *values, step], 2)[STORED]

    def _read(self, key: str, value: object, step: int | None) -> Number:
        if not isinstance(value, Unread):
            return value  # type: ignore[return-value]
        try:
            return value.read()
        except Exception as exc:  # noqa: BLE001 - another library's, and the row must not be lost
            self._losses.say(key, step, exc)
            return math.nan


Queued = Record | UnreadRow | UnredactedEvent
_UNFINISHED = (UnreadRow, UnredactedEvent)


def written(records: list[Queued]) -> list[Record]:
    """Return records as they are stored, in their order; blocks where a number is not there yet."""
    if set(_UNFINISHED).isdisjoint(map(type, records)):
        return records  # type: ignore[return-value]
    return [one.packed() if isinstance(one, _UNFINISHED) else one for one in records]
