"""The effective config as JSON text, for `effective_config.json` and trackers, secrets hidden."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pydantic_core
from pydantic import BaseModel

from keisei._text import as_utf8
from keisei.config.schema import AppConfig
from keisei.redaction import HIDDEN, redact, secret_values

_LARGEST = 250_000
_DEEPEST = 32  # keys in a path that is shown
_LONGEST_INTEGER = 14_000  # bits: Python itself reads back no more than 4,300 digits


def serialize_config(config: AppConfig, environ: Mapping[str, str] | None = None) -> str:
    """Return the effective config as JSON text: nulls kept, secrets hidden, ending in a newline.

    Non-finite numbers become strings (`"NaN"`), which pydantic reads back as numbers.

    Args:
        config: the config.
        environ: where known secret values are found; ``None`` takes the process's environment.

    Raises:
        ValueError: it is too large (see `weigh`), or JSON cannot express it: it holds a cycle, a
            lone surrogate or an object.
    """
    weigh(config)
    known = secret_values(os.environ if environ is None else environ)
    data = redact(config.model_dump(mode="json"), known)
    try:
        text = pydantic_core.to_json(data, indent=2, inf_nan_mode="strings")
    except ValueError:  # a path of other bytes than UTF-8, or what has no JSON form at all
        text = pydantic_core.to_json(_as_utf8(data), indent=2, inf_nan_mode="strings")
    return text.decode() + "\n"


def _as_utf8(data: Any) -> Any:
    if isinstance(data, str):
        return as_utf8(data)
    if isinstance(data, dict):
        return {key: _as_utf8(value) for key, value in data.items()}
    return [_as_utf8(value) for value in data] if isinstance(data, list) else data


def weigh(data: object) -> int:
    """Count what a config holds, before anything is done that grows with it.

    What is shared counts each time that it is met, as it will stand in the text.

    Args:
        data: a config, or plain data.

    Returns:
        Its values, and one for each 64 characters.

    Raises:
        ValueError: it holds too much to be a config (over 250,000), as one that contains itself
            does, or what JSON's readers do not take.
    """
    weight, left = 0, [data]
    while left:
        value = left.pop()
        weight += 1
        if isinstance(value, str):
            weight += len(value) >> 6
        elif value is None or isinstance(value, float):
            pass  # these and what follows go first: to ask for a model takes ten times as long
        elif isinstance(value, int):
            if value.bit_length() > _LONGEST_INTEGER:
                raise ValueError("a whole number has more digits than JSON's readers take")
        elif isinstance(value, dict):
            for key in value:
                if isinstance(key, str) and not key.isascii():
                    key.encode()  # a lone surrogate is no text
            left.extend(value)
            left.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            left.extend(value)
        elif isinstance(value, BaseModel):
            left.extend(value.__dict__.values())
            left.extend((value.__pydantic_extra__ or {}).values())
        if weight + len(left) > _LARGEST:
            raise ValueError("it holds too much to be a config, or a circular reference")
    return weight


def without_json(config: BaseModel) -> str:
    """Return the key path of the first value that JSON cannot express; "" where none is found.

    Raises:
        ValueError: it is too large to be looked through (see `weigh`).
    """
    weigh(config)
    path: list[str] = []
    value: Any = config
    while len(path) < _DEEPEST:
        for key, dumped in _parts(value):
            try:
                pydantic_core.to_json(dumped(), inf_nan_mode="strings")
            except Exception:  # noqa: BLE001 - the user's own serializers
                path.append(str(key))
                value = getattr(value, key) if isinstance(value, BaseModel) else value[key]
                break
        else:
            break
    return ".".join(path)


def _parts(value: Any) -> Iterator[tuple[Any, Callable[[], Any]]]:
    """Yield the keys of a value, each with what makes plain data of what is there."""
    if isinstance(value, BaseModel):
        for name in [*type(value).model_fields, *(value.__pydantic_extra__ or {})]:
            yield name, partial(value.model_dump, mode="json", include={name})
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key, partial(dict, [(key, item)])
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield number, partial(list, [item])


def hidden_keys(data: object) -> Iterator[str]:
    """Yield the key paths of the values in plain data whose secrets are hidden."""
    left: list[tuple[str, object]] = [("", data)]
    while left:
        where, value = left.pop()
        if isinstance(value, str) and (value == HIDDEN or f"://{HIDDEN}@" in value):
            yield where
        if isinstance(value, (dict, list)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            left += [(f"{where}.{key}" if where else str(key), item) for key, item in items]
