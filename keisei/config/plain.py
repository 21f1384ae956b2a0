"""Make plain data of a config of any kind: models, dataclasses, attrs, mappings, namespaces."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import enum
import numbers
import os
import sys
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from keisei.config.section import Section
from keisei.redaction import HIDDEN

_DEEPEST = 64
_MOST = 250_000  # values
_LONGEST = 200  # characters of what only has a text
_NAMESPACES = (argparse.Namespace, types.SimpleNamespace)


def has_fields(value: object) -> bool:
    """Return whether a value has named fields, as a config has."""
    if isinstance(value, type):
        return False
    return (
        isinstance(value, (BaseModel, Mapping, *_NAMESPACES))
        or dataclasses.is_dataclass(value)
        or hasattr(type(value), "__attrs_attrs__")
        or (hasattr(value, "keys") and hasattr(value, "__getitem__"))
    )


def plain(value: object) -> Any:
    """Return a value as plain data: dicts with texts for keys, lists, and what JSON has.

    Enums are their values, paths and dates texts, sets lists, classes and functions their names,
    secrets of pydantic's hidden. Of a section of keisei's there is what has been set. A namespace's
    key with dots (`training.total_timesteps`) is nested. What has no plain form is its text where
    that is short, else its kind.

    Args:
        value: a config, or a part of it.

    Raises:
        ValueError: it is nested too deep, or too large, as one that holds itself is.
    """
    return _Reader().read(value, 0)


def in_both_forms(value: object) -> tuple[Any, Any]:
    """Return a config as plain data as it was written and with its interpolations resolved.

    They differ for OmegaConf's alone.

    Args:
        value: a config.

    Raises:
        ValueError: it is too large or too deep, or an interpolation is not resolved.
    """
    if not is_omegaconf(value):
        data = plain(value)
        return data, data
    return _Reader().read(_container(value, resolve=False), 0), plain(value)


def is_omegaconf(value: object) -> bool:
    """Return whether a value is one of OmegaConf's containers."""
    omegaconf = sys.modules.get("omegaconf")
    return omegaconf is not None and isinstance(value, omegaconf.Container)


def _container(value: object, *, resolve: bool) -> Any:
    omegaconf = sys.modules["omegaconf"]
    try:
        return omegaconf.OmegaConf.to_container(value, resolve=resolve)
    except Exception as exc:  # noqa: BLE001 - resolvers are the user's own
        key = getattr(exc, "full_key", None) or "a key"
        problem = f"{key}: its interpolation is not resolved ({type(exc).__name__}): set what it "
    raise ValueError(f"{problem}names, or register its resolver before the session is made")


class _Reader:
    """Reads one config, and counts what it holds."""

    def __init__(self) -> None:
        self._count = 0

    def read(self, value: Any, depth: int) -> Any:
        self._count += 1
        if depth > _DEEPEST or self._count > _MOST:
            raise ValueError("it holds too much to be a config, or a circular reference")
        if isinstance(value, enum.Enum):
            value = value.value
        if value is None or isinstance(value, bool):
            return value
        for kind in (str, int, float):
            if isinstance(value, kind):
                return value if type(value) is kind else kind(value)
        if is_omegaconf(value):
            return self.read(_container(value, resolve=True), depth)
        if has_fields(value):
            return self._fields(value, depth + 1)
        if isinstance(value, (set, frozenset)):
            value = sorted(value, key=repr)
        if isinstance(value, (list, tuple, range)) or _is_attribute_free(value):
            return [self.read(item, depth + 1) for item in value]
        return _scalar(value)

    def _fields(self, value: Any, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, inner in _items(value):
            parts = [str(key.value if isinstance(key, enum.Enum) else key)]
            if isinstance(value, _NAMESPACES):
                parts = [part for part in parts[0].split(".") if part] or parts
            into = found
            for part in parts[:-1]:
                below = into.setdefault(part, {})
                into = below if isinstance(below, dict) else into
            read, last = self.read(inner, depth), parts[-1]
            if isinstance(read, dict) and isinstance(into.get(last), dict):
                into[last].update(read)
            else:
                into[last] = read
        return found


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, BaseModel):
        return _of_model(value)
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, _NAMESPACES):
        return vars(value).items()
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    elif (attributes := getattr(type(value), "__attrs_attrs__", None)) is not None:
        names = [attribute.name for attribute in attributes]
    else:
        return [(key, value[key]) for key in value.keys()]  # noqa: SIM118 - no mapping by type
    return [(name, getattr(value, name)) for name in names if hasattr(value, name)]


def _of_model(model: BaseModel) -> Iterator[tuple[str, Any]]:
    values = model.__dict__
    for name, field in type(model).model_fields.items():
        if name not in values or field.exclude:
            continue
        inner = values[name]
        is_set = name in model.model_fields_set or isinstance(inner, Section)
        if is_set or not isinstance(model, Section):
            yield name, inner
    yield from (model.model_extra or {}).items()


def _is_attribute_free(value: object) -> bool:
    """Return whether a value is a sequence of another kind, such as a deque."""
    return isinstance(value, Iterable) and type(value).__module__ == "collections"


def _scalar(value: Any) -> Any:
    if hasattr(value, "get_secret_value"):
        return HIDDEN
    if type(value).__name__ in ("bool", "bool_"):  # numpy's
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else os.fsdecode(path)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, uuid.UUID):
        return str(value)
    return _text_of(value)


def _text_of(value: object) -> str:
    """Return the text of a value without a plain form; its kind where the text says no more."""
    kind = type(value)
    own = kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__
    if own and not isinstance(value, (bytes, bytearray, memoryview)):
        try:
            text = str(value)
        except Exception:  # noqa: BLE001 - the user's own type
            text = ""
        if 0 < len(text) <= _LONGEST and text.isprintable() and " at 0x" not in text:
            return text
    return f"<{kind.__name__}>"
