"""What an evaluation has come to, as plain data: a copy for its log, and its numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from keisei.errors import quoted

_DEEPEST = 32
_MOST = 100_000
_LONGEST_INTEGER = 14_000  # bits: Python itself reads back no more than 4,300 digits
_LARGEST = 1 << 20


def plain_record(record: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Copy an evaluation record as JSON's own kinds of data, and its numbers as metrics.

    Non-finite numbers become strings (`"NaN"`, `"Infinity"`, `"-Infinity"`) in the first copy,
    and stay numbers among the metrics, as in the journal.

    Args:
        record: numbers, texts, flags and nulls by name, nested as JSON allows.

    Returns:
        The copy, and its numbers and flags, those in lists left out.

    Raises:
        TypeError: JSON cannot hold a value; the message names its key.
    """
    if not isinstance(record, Mapping):
        raise TypeError(f"an evaluation record must be a mapping, not {type(record).__name__}")
    data, numbers = _Copier().mapping(record, "", 0)
    if (size := len(json.dumps(data))) > _LARGEST:
        raise TypeError(f"an evaluation record of {size:,} characters is too large for a line")
    return data, numbers


class _Copier:
    def __init__(self) -> None:
        self._values = 0

    def mapping(
        self, record: Mapping[str, object], prefix: str, depth: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        data: dict[str, Any] = {}
        numbers: dict[str, Any] = {}
        for name, value in record.items():
            if not isinstance(name, str):
                where = f" under {quoted(prefix)}" if prefix else ""
                raise TypeError(f"a key of a record must be a string, not {quoted(name)}{where}")
            name = str.__str__(name)
            if isinstance(value, Mapping):
                self._count(prefix + name, depth)
                data[name], nested = self.mapping(value, f"{prefix}{name}/", depth + 1)
                if nested:
                    numbers[name] = nested
            else:
                data[name], number = self._value(prefix + name, value, depth)
                if number is not None:
                    numbers[name] = number
        return data, numbers

    def _value(self, key: str, value: Any, depth: int) -> tuple[Any, float | int | bool | None]:
        """Give a value as JSON holds it, and the number that it is."""
        self._count(key, depth)
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            value = value.item()  # of numpy, torch and their like
        if value is None or isinstance(value, bool):
            return value, value
        if isinstance(value, str):
            return str.__str__(value), None
        if isinstance(value, int) and value.bit_length() <= _LONGEST_INTEGER:
            return int(value), int(value)
        if isinstance(value, float):
            number = float(value)
            if math.isfinite(number):
                return number, number
            sign = "-" if number < 0 else ""
            return "NaN" if math.isnan(number) else f"{sign}Infinity", number
        if isinstance(value, (list, tuple)):
            return [
                self._item(f"{key}[{i}]", item, depth + 1) for i, item in enumerate(value)
            ], None
        what = "so long an integer" if isinstance(value, int) else type(value).__name__
        raise TypeError(f"{quoted(key)} of a record must be what JSON can hold, not {what}")

    def _item(self, key: str, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            self._count(key, depth)
            return self.mapping(value, f"{key}/", depth + 1)[0]
        return self._value(key, value, depth)[0]

    def _count(self, key: str, depth: int) -> None:
        """Bound the depth and the number of values, which sharing can make endless."""
        self._values += 1
        if depth > _DEEPEST or self._values > _MOST:
            raise TypeError(f"{quoted(key)}: the record is nested too deep, or holds too much")
