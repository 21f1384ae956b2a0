"""An evaluation's result as plain data: a copy for its log, and its numbers.

`pydantic_core.to_jsonable_python` is no help here: it takes bytes, sets and dates, makes strings
of keys, keeps non-finite numbers, and follows shared lists without an end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from keisei.errors import quoted
from keisei.journal.values import Number, Unread, number_or_unread

_DEEPEST = 32
_MOST = 100_000
_LONGEST_INTEGER = 14_000  # bits: Python itself reads back no more than 4,300 digits
_LARGEST = 1 << 20

Numbers = dict[str, Number | Unread]


def plain_record(record: Mapping[str, object]) -> tuple[dict[str, Any], Numbers]:
    """Return a copy of an evaluation's result as JSON's own kinds of data, and its numbers.

    Non-finite numbers become strings (`"NaN"`, `"Infinity"`, `"-Infinity"`) in the copy, and stay
    numbers among the metrics, as in the journal. What may still be under computation is left
    unread in both; see `read_later`.

    Args:
        record: numbers, texts, flags and nulls by name, nested as JSON allows.

    Returns:
        The copy, and its numbers and flags by name, nested names joined with `/`; those in lists
        are left out.

    Raises:
        TypeError: JSON cannot hold a value; the message names its key.
    """
    if not isinstance(record, Mapping):
        raise TypeError(f"an evaluation record must be a mapping, not {type(record).__name__}")
    copier = _Copier()
    data = copier.mapping(record, "", 0, in_list=False)
    if (size := len(json.dumps(data, default=lambda _: 0.0))) > _LARGEST:
        raise TypeError(f"an evaluation record of {size:,} characters is too large for a line")
    return data, copier.numbers


class _Copier:
    def __init__(self) -> None:
        self.numbers: Numbers = {}
        self._values = 0

    def mapping(
        self, values: Mapping[str, object], prefix: str, depth: int, *, in_list: bool
    ) -> dict[str, Any]:
        data = {}
        for name, value in values.items():
            if not isinstance(name, str):
                where = f" under {quoted(prefix)}" if prefix else ""
                raise TypeError(f"a key of a record must be a string, not {quoted(name)}{where}")
            name = str.__str__(name)
            data[name] = self._value(prefix + name, value, depth, in_list=in_list)
        return data

    def _value(self, key: str, value: Any, depth: int, *, in_list: bool) -> Any:
        self._values += 1
        if depth > _DEEPEST or self._values > _MOST:  # sharing can make a record endless
            raise TypeError(f"{quoted(key)}: the record is nested too deep, or holds too much")
        if isinstance(value, Mapping):
            return self.mapping(value, f"{key}/", depth + 1, in_list=in_list)
        if isinstance(value, (list, tuple)):
            return [
                self._value(f"{key}[{i}]", item, depth + 1, in_list=True)
                for i, item in enumerate(value)
            ]
        if value is None:
            return None
        if isinstance(value, str):
            return str.__str__(value)
        number = number_or_unread(key, value, of="value", allowed="what JSON can hold")
        if type(number) is int and number.bit_length() > _LONGEST_INTEGER:
            raise TypeError(f"value {quoted(key)} is longer than an integer may be in JSON")
        if not in_list:
            if key in self.numbers:
                raise TypeError(f"{quoted(key)} is given twice, once as a nested name")
            self.numbers[key] = number
        return number if isinstance(number, Unread) else _shown(number)


def read_later(values: Any) -> Any:
    """Return a copy of a record with the numbers in it that were not read at the call; blocks."""
    if isinstance(values, dict):
        return {name: read_later(value) for name, value in values.items()}
    if isinstance(values, list):
        return [read_later(value) for value in values]
    if not isinstance(values, Unread):
        return values
    try:
        return _shown(values.read())
    except Exception:  # noqa: BLE001 - another library's; the journal's writer warns of it
        return _shown(math.nan)


def _shown(number: Number) -> Number | str:
    """Return a number as JSON has it."""
    if not isinstance(number, float) or math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
