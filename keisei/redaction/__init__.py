"""Hide secrets: by key and value, by the user-info of URLs, by known values and known shapes.

One redactor at the sink: what leaves for a file, a log, an exception, a repr or a tracker passes
here. Call `clean` for what this process writes; the rest are its parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from keisei.redaction import texts
from keisei.redaction.commands import is_client
from keisei.redaction.keys import (
    ALWAYS,
    CODE,
    KEY,
    PASS,
    is_harmless,
    is_harmless_number,
    secrecy,
    secrecy_below,
)
from keisei.redaction.known import HIDDEN, Known, known, secret_values

__all__ = ["HIDDEN", "Shown", "clean", "redact", "redact_text", "secrecy", "secret_values"]

T = TypeVar("T")


def clean(data: T) -> T:
    """Hide secrets in a text or in plain data, this process's environment's values included."""
    cleaned: T = redact(data, secret_values(os.environ))
    return cleaned


def redact_text(text: str, values: Iterable[str] = ()) -> str:
    """Hide secrets in a text: known values and shapes, and what keys, headers and URLs reveal.

    Args:
        text: any text.
        values: values to hide wherever they stand, from `secret_values`.
    """
    return texts.redact_text(text, known(tuple(values)))


def redact(data: Any, values: Iterable[str] = ()) -> Any:
    """Copy plain data with every secret hidden; nulls, flags and most numbers stay.

    Args:
        data: a text, or nested dicts, lists, tuples and sets of plain values.
        values: values to hide wherever they stand, from `secret_values`.
    """
    return _redact(data, known(tuple(values)))


def _redact(data: Any, known: Known) -> Any:
    if isinstance(data, str):
        return _short(data, known) if len(data) < _SHORT else texts.redact_text(data, known)
    if isinstance(data, dict):
        return _redact_dict(data, known)
    if isinstance(data, (list, tuple)):
        kind: Any = list if isinstance(data, list) else tuple
        return kind(_redact_items(data, known))
    if isinstance(data, (set, frozenset)):
        kind = set if isinstance(data, set) else frozenset
        return kind(_redact(item, known) for item in data)
    return data


_SHORT = 64
_short = lru_cache(maxsize=4096)(texts.redact_text)


def _redact_dict(data: dict[Any, Any], known: Known, parent: str = "") -> dict[Any, Any]:
    copy = {}
    value_key = next((key for key in ("value", "val", "v") if key in data), None)
    pair = _named_by(data) if value_key is not None else 0
    of_kubernetes = data.get("kind") == "Secret"
    for key, value in data.items():
        if isinstance(key, str):
            shown, level = _key(parent, key, known)
            if pair and key == value_key:
                level = max(level, pair)
            if of_kubernetes and key in ("data", "stringData"):
                level = ALWAYS
            if level:
                copy[shown] = _hidden(value, level, known)
            elif isinstance(value, dict):
                copy[shown] = _redact_dict(value, known, key)
            else:
                copy[shown] = _redact(value, known)
        else:
            copy[_redact(key, known)] = _redact(value, known)
    return copy


def _named_by(data: dict[Any, Any]) -> int:
    """Return how far a mapping such as `{name: DB_PASSWORD, value: x}` says that it is a secret."""
    names = [data.get(key) for key in ("name", "key", "header", "field", "k")]
    return max((secrecy(name) for name in names if isinstance(name, str)), default=0)


def _redact_items(items: Sequence[Any], known: Known) -> Iterable[Any]:
    """Copy the items of a list, in which a flag or a key may come before its value."""
    level = 0
    program = items[0] if items and isinstance(items[0], str) else ""
    before = ""
    for number, item in enumerate(items):
        text = isinstance(item, str)
        if level and text:
            yield _hidden(item, level, known)
        elif text and number and is_client(program):
            # As the part of its command line that it is: of `-u` another program's value decides.
            line = texts.redact_text(f"{program} {before} {item}", known)
            yield line.removeprefix(f"{program} {before} ") if HIDDEN in line else item
        else:
            yield _redact(item, known)
        before = item if text else ""
        level = 0
        if text and 1 < len(item) < 100 and " " not in item:
            if item[0] == "-" and "=" not in item:
                level = secrecy(item)
            elif len(items) == 2 and number == 0:
                level = secrecy(item)
                if level > PASS:  # such as ["password", "email"]
                    level = KEY if "authorization" in item.lower() else PASS


@lru_cache(maxsize=4096)
def _key(parent: str, key: str, known: Known) -> tuple[str, int]:
    """Return a key as it may be shown, and how far it makes its value a secret."""
    return texts.redact_text(key, known), secrecy_below(parent, key)


def _hidden(value: Any, level: int, known: Known) -> Any:
    """Hide what stands under a secret key; its shape, and what cannot be a secret, stay."""
    if isinstance(value, str):
        return _redact(value, known) if is_harmless(value, level) else HIDDEN
    if isinstance(value, dict):
        if level <= CODE:
            return _redact_dict(value, known)
        return {key: _hidden(inner, level, known) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(item, level, known) for item in value]
    if value is None or isinstance(value, bool) or hasattr(value, "get_secret_value"):
        return value
    if isinstance(value, (int, float)):
        return value if is_harmless_number(value, level) else HIDDEN
    return HIDDEN


class Shown:
    """Stands in for a value in a repr: reads as the value's own, with secrets hidden.

    Args:
        key: what the value is called, if anything.
        value: the value; a secret type of pydantic's reads as pydantic shows it.
    """

    def __init__(self, key: str | None, value: object) -> None:
        self._key, self._value = key, value

    def __repr__(self) -> str:
        known = secret_values(os.environ)
        try:
            value = redact({self._key: self._value}, known)[self._key]
        except RecursionError:  # it contains itself
            value = self._value
        return redact_text(repr(value), known)
