"""What frameworks hand to their loggers, sorted into numbers, texts and what is neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from keisei.journal.values import Number, Unread, number_or_unread

_DEEPEST = 16
_LONGEST = 1000  # characters of a value that only its text stands for
_MOST = 1000  # values of a list


class Sorted(NamedTuple):
    """A mapping of a framework's, nested names joined with `/`.

    Attributes:
        numbers: what is a number.
        texts: what is a text.
        others: the names of the rest.
    """

    numbers: dict[str, Number | Unread]
    texts: dict[str, str]
    others: list[str]


def sort(values: Mapping[object, object]) -> Sorted:
    """Return what of a mapping can be logged, and as what.

    Args:
        values: numbers, texts, mappings and anything else, by name.
    """
    found = Sorted({}, {}, [])
    _sort(values, "", found, 0)
    return found


def _sort(values: Mapping[object, object], prefix: str, found: Sorted, depth: int) -> None:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and depth < _DEEPEST:
            _sort(value, f"{key}/", found, depth + 1)
        elif isinstance(value, str):
            found.texts[key] = value
        else:
            try:
                found.numbers[key] = number_or_unread(key, value)
            except TypeError:
                found.others.append(key)


def plain(value: object, depth: int = 0) -> object:
    """Return a value as JSON can hold it; of what it cannot hold, the text.

    Args:
        value: hyper-parameters, and whatever stands among them.
        depth: how deep it is nested.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {str(name): plain(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, Sequence | set | frozenset) and depth < _DEEPEST:
        return [plain(inner, depth + 1) for inner in list(value)[:_MOST]]
    try:
        return str(value)[:_LONGEST]
    except Exception:  # noqa: BLE001 - the user's own object
        return f"<{type(value).__name__} object>"
