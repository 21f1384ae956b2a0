"""Read a config from a file, apply overrides, validate it; every failure is one ConfigError.

The parsers are imported where they are needed: YAML's costs 8 ms, and many programs build their
config without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any, TypeVar, get_args, overload

from pydantic import BaseModel, ValidationError
from pydantic_core import core_schema

from keisei.config.schema import OWN_ERROR, AppConfig
from keisei.config.text import weigh
from keisei.errors import ConfigError, quoted

ConfigT = TypeVar("ConfigT", bound=AppConfig)

# Kinds of errors whose message is pydantic's or keisei's own, and does not show the value.
_VALUELESS = {OWN_ERROR, *get_args(core_schema.ErrorType)} - {
    "assertion_error", "get_attribute_error", "iteration_error", "mapping_type",
    "union_tag_invalid", "value_error",
}  # fmt: skip

_SHOWN = 20  # problems in one message
_LARGEST = 16 * 2**20  # characters in a file

Overrides = Mapping[str, Any] | Iterable[str] | str


@overload
def load_config(
    path: str | PathLike[str] | None = None, overrides: Overrides | None = None
) -> AppConfig: ...


@overload
def load_config(
    path: str | PathLike[str] | None = None,
    overrides: Overrides | None = None,
    *,
    model: type[ConfigT],
) -> ConfigT: ...


def load_config(
    path: str | PathLike[str] | None = None,
    overrides: Overrides | None = None,
    *,
    model: type[AppConfig] = AppConfig,
) -> AppConfig:
    """Read a YAML, JSON or TOML file, apply overrides and validate the result.

    It reads a file and may import a parser, so call it before the event loop runs, or in a
    worker thread.

    Args:
        path: the file, whose suffix decides its format (`.yaml`, `.yml`, `.json`, `.toml`);
            `None` starts from the defaults.
        overrides: a mapping, nested or with dotted keys, or strings such as
            `"training.total_timesteps=1000"`, whose right side is read as YAML.
        model: the config's class, `AppConfig` or one derived from it.

    Returns:
        The validated config.

    Raises:
        ConfigError: the file cannot be read or parsed, or a key or value does not fit. The
            message names the file, the key and the reason, and shows no value.
    """
    source = "the overrides" if path is None else quoted(fspath(path), limit=300)
    data = {} if path is None else _read(fspath(path), source)
    for keys, value in _parsed_overrides(overrides):
        _set(data, keys, value)
    try:
        weigh(data)
        return model.model_validate(data)
    except ValidationError as exc:
        problems = [_explain(error, model) for error in exc.errors(include_url=False)[:_SHOWN]]
        if exc.error_count() > _SHOWN:
            problems.append(f"  and {exc.error_count() - _SHOWN} more")
    except ValueError as exc:
        problems = [f"  {exc}"]
    # Raised outside the except block: a chained ValidationError holds the values it was given.
    verb = "do" if path is None else "does"
    raise ConfigError(f"{source} {verb} not fit {model.__name__}:\n" + "\n".join(problems))


def _read(path: str, source: str) -> dict[str, Any]:
    suffix = path.rpartition(".")[2].lower() if "." in path else ""
    if suffix not in ("yaml", "yml", "json", "toml"):
        raise ConfigError(f"{source}: a config ends in .yaml, .yml, .json or .toml")
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(_LARGEST)
        if len(text) == _LARGEST:
            raise _SyntaxError(f"it has over {_LARGEST} characters")
        data = _parse(text, suffix)
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror or exc}"
    except UnicodeDecodeError as exc:
        problem = f"cannot be read: byte {exc.start} is not UTF-8"
    except (_SyntaxError, RecursionError, ValueError) as exc:
        reason = str(exc) if isinstance(exc, _SyntaxError) else type(exc).__name__
        problem = f"is not a config: {reason}"
    else:
        if isinstance(data, dict):
            return data
        found = "is empty" if data is None else f"holds a {type(data).__name__} at the top"
        way_out = "write sections such as `training:`, or pass no file for the defaults"
        problem = f"is not a config: it {found}; {way_out}"
    # Raised outside the except blocks, here and below: what was caught holds the file's text.
    raise ConfigError(f"{source} {problem}")


class _SyntaxError(Exception):
    """Where a text does not parse, without quoting it (a parser's own message may)."""


def _parse(text: str, suffix: str) -> Any:
    if suffix == "json":
        return _parse_json(text) if text.strip() else None
    return _parse_toml(text) or None if suffix == "toml" else _parse_yaml(text)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        problem = f"line {exc.lineno}, column {exc.colno}: {exc.msg}"
    raise _SyntaxError(problem)


def _parse_toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        where = str(exc).rpartition("(")[2].rstrip(")")
    raise _SyntaxError(f"no valid TOML {where}")


def _parse_yaml(text: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    raise _SyntaxError(f"{where}no valid YAML")


def _parsed_overrides(overrides: Overrides | None) -> Iterable[tuple[list[str], Any]]:
    if overrides is None:
        return
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield str(key).split("."), value
        return
    given = [overrides] if isinstance(overrides, str) else overrides
    for number, text in enumerate(given, start=1):
        key, equals, value = str(text).partition("=")
        if not equals or not all(key.split(".")):
            # Not quoted: without a key, it may be a value.
            raise ConfigError(f"override number {number}: write it as section.field=value")
        try:
            parsed, valid = _parse_yaml(value), True
        except (_SyntaxError, RecursionError, ValueError):
            valid = False
        if not valid:
            raise ConfigError(f"override {quoted(key)}: its value is no valid YAML")
        yield key.strip().split("."), parsed


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
    return f"  {where}: {error['msg']} (it is a {type(error['input']).__name__})"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)
