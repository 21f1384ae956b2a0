"""Read a config from a file, apply overrides, validate it; every failure is one ConfigError."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any, TypeVar, get_args, overload

from pydantic import BaseModel, ValidationError
from pydantic_core import core_schema

from keisei.config.checking import kind, way_out
from keisei.config.layers import Layers
from keisei.config.lines import Lines
from keisei.config.origins import in_file, in_override, remember
from keisei.config.parsing import SUFFIXES, ParseError, parse_value, parse_with_lines
from keisei.config.references import resolve
from keisei.config.schema import AppConfig
from keisei.config.section import OWN_ERROR
from keisei.config.text import hidden_keys, weigh
from keisei.errors import ConfigError, quoted

ConfigT = TypeVar("ConfigT", bound=AppConfig)

# Kinds of errors whose message is pydantic's or keisei's own, and does not show the value.
_VALUELESS = {OWN_ERROR, *get_args(core_schema.ErrorType)} - {
    "assertion_error", "get_attribute_error", "iteration_error", "mapping_type",
    "union_tag_invalid", "value_error",
}  # fmt: skip

_HIDDEN_NOTE = (
    "{}: its secret was hidden when this was written: give it as an override, or write `${{NAME}}` "
    "for an environment variable"
)
_SHOWN = 20  # problems in one message
_LARGEST = 16 * 2**20  # characters in a file

Overrides = Mapping[str, Any] | Iterable[str] | str


@overload
def load_config(
    path: str | os.PathLike[str] | None = None, overrides: Overrides | None = None
) -> AppConfig: ...


@overload
def load_config(
    path: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    *,
    model: type[ConfigT],
) -> ConfigT: ...


def load_config(
    path: str | os.PathLike[str] | None = None,
    overrides: Overrides | None = None,
    *,
    model: type[AppConfig] = AppConfig,
) -> AppConfig:
    """Read a YAML, JSON or TOML file, apply overrides and validate the result.

    `${NAME}` in a text is the environment variable's value, `${NAME:-text}` has a default, and
    `$${NAME}` is the text `${NAME}`. It reads a file and may import a parser, so call it before
    the event loop runs, or in a worker thread.

    Args:
        path: the file, whose suffix decides its format (`.yaml`, `.yml`, `.json`, `.toml`);
            `None` starts from the defaults.
        overrides: a mapping, nested or with dotted keys, or strings such as
            `"training.total_timesteps=1000"`. The right side is a number, a boolean or a null
            where YAML says so, YAML where it begins with a bracket or a quote, else a text as it
            stands.
        model: the config's class, `AppConfig` or one derived from it.

    Returns:
        The validated config.

    Raises:
        ConfigError: the file cannot be read or parsed, a key stands twice, a reference is not
            resolved, or a key or value does not fit. The message names the file, the key and the
            reason, and shows no value.
    """
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"a config's path is a text, not a {kind(path)}: {way_out(path)}")
    source = "the overrides" if path is None else quoted(os.fspath(path), limit=300)
    data, lines = ({}, {}) if path is None else _read(os.fspath(path), source)
    given: list[list[str]] = []
    layers = Layers()
    try:
        weigh(data)
        if path is not None:
            layers.put((), data, in_file(os.path.abspath(path), lines, os.environ), dotted=False)
        data = resolve(data, os.environ)  # a copy, in which nothing is shared
        for keys, value in _parsed_overrides(overrides):
            given.append(keys)
            weigh(value)
            layers.put(tuple(keys), value, in_override(len(given), os.environ), dotted=True)
            _set(data, keys, resolve(value, os.environ, ".".join(keys)))
        weigh(data)
        problems = [f"  {_HIDDEN_NOTE.format(key)}" for key in hidden_keys(data)][:_SHOWN]
        if not problems:
            config = model.model_validate(data)
            remember(config, layers)
            return config
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        overridden = [_is_given(error["loc"], given) for error in errors]
        if all(overridden):
            source, overridden = "the overrides", []
        problems = [_explain(error, model) for error in errors[:_SHOWN]]
        problems = [
            f"{problem}; an override" if given_so else problem
            for problem, given_so in zip_longest(problems, overridden[:_SHOWN])
        ]
        if len(errors) > _SHOWN:
            problems.append(f"  and {len(errors) - _SHOWN} more")
    except ConfigError:
        raise
    except (ValueError, RecursionError) as exc:
        problems = [f"  {exc}"]
        if given:
            source = "the overrides"
    # Raised outside the except block: a chained ValidationError holds the values it was given.
    verb = "do" if source == "the overrides" else "does"
    raise ConfigError(f"{source} {verb} not fit {model.__name__}:\n" + "\n".join(problems))


def _read(path: str, source: str) -> tuple[dict[str, Any], Lines]:
    suffix = path.rpartition(".")[2].lower() if "." in path else ""
    if suffix not in SUFFIXES:
        raise ConfigError(f"{source}: a config ends in .yaml, .yml, .json or .toml")
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(_LARGEST)
        if len(text) == _LARGEST:
            raise ParseError(f"it has over {_LARGEST} characters")
        data, lines = parse_with_lines(text, suffix)
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror or exc}"
    except UnicodeDecodeError as exc:
        problem = f"cannot be read: byte {exc.start} is not UTF-8"
    except (ParseError, RecursionError, ValueError) as exc:
        reason = str(exc) if isinstance(exc, ParseError) else type(exc).__name__
        problem = f"is not a config: {reason}"
    else:
        if isinstance(data, dict):
            return data, lines
        found = "is empty" if data is None else f"holds a {type(data).__name__} at the top"
        way_out = "write sections such as `training:`, or pass no file for the defaults"
        problem = f"is not a config: it {found}; {way_out}"
    # Raised outside the except blocks, here and below: what was caught holds the file's text.
    raise ConfigError(f"{source} {problem}")


def _parsed_overrides(overrides: Overrides | None) -> Iterable[tuple[list[str], Any]]:
    if overrides is None:
        return
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield str(key).split("."), value
        return
    given = [overrides] if isinstance(overrides, str) else overrides
    if not isinstance(given, Iterable):
        raise ConfigError(f"overrides are a mapping or texts, not a {kind(given)}: pass vars(it)")
    for number, text in enumerate(given, start=1):
        key, equals, value = str(text).partition("=")
        if not equals or not all(key.split(".")):
            # Not quoted: without a key, it may be a value.
            raise ConfigError(f"override number {number}: write it as section.field=value")
        try:
            parsed, problem = parse_value(value), ""
        except (ParseError, RecursionError, ValueError) as exc:
            problem = str(exc) if isinstance(exc, ParseError) else type(exc).__name__
        if problem:
            raise ConfigError(f"override {quoted(key)}: {problem}")
        yield key.strip().split("."), parsed


def _is_given(where: tuple[int | str, ...], given: list[list[str]]) -> bool:
    """Return whether an error is about what an override has set."""
    path = [str(part) for part in where]
    return any(path[: len(keys)] == keys[: len(path)] for keys in given)


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set the value of a dotted key; a mapping is merged into the one that is there."""
    *parents, last = keys
    for key in parents:
        inner = data.get(key)
        if not isinstance(inner, dict):
            inner = data[key] = {}
        data = inner
    if isinstance(value, Mapping):
        if not isinstance(data.get(last), dict):
            data[last] = {}
        for key, inner_value in value.items():
            _set(data[last], str(key).split("."), inner_value)
    else:
        data[last] = value


def _explain(error: Any, model: type[BaseModel]) -> str:
    """Describe an error by its key and reason, without the value: it may be a misplaced secret."""
    path = [str(part) for part in error["loc"]]
    where = quoted(".".join(path), limit=200)[1:-1] or "the top level"
    if error["type"] == "extra_forbidden":
        import difflib

        known = _fields_at(model, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}"
        return f"  {where}: unknown key; {hint}"
    if error["type"] not in _VALUELESS:
        # A validator of the user's own: its message is its author's, and may hold the value.
        return f"  {where}: refused by the validator of this field"
    hint = "; in quotes it is a text" if error["type"] == "string_type" else ""
    return f"  {where}: {error['msg']} (it is a {type(error['input']).__name__}{hint})"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)
