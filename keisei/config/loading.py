"""Read a config from a file, apply the environment and overrides, validate it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, overload

from keisei.config.checking import kind, way_out
from keisei.config.files import read_config
from keisei.config.parsing import ParseError, parse_value, word_of
from keisei.config.schema import AppConfig
from keisei.config.sources import OVERRIDES, Sources
from keisei.errors import ConfigError, quoted

ConfigT = TypeVar("ConfigT", bound=AppConfig)

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
    """Read a YAML, JSON or TOML file, apply the environment and overrides, validate the result.

    A variable such as `KEISEI__TRAINING__TOTAL_TIMESTEPS` goes before the file, an override before
    both.

    `${NAME}` in a text is the environment variable's value, `${NAME:-text}` has a default, and
    `$${NAME}` is the text `${NAME}`. It reads a file and may import a parser, so call it before
    the event loop runs, or in a worker thread.

    Args:
        path: the file, whose suffix decides its format (`.yaml`, `.yml`, `.json`, `.toml`);
            `None` starts from the defaults. An installed config source reads what has its name
            for a suffix, or for a scheme (`name://...`).
        overrides: a mapping, nested or with dotted keys, or strings such as
            `"training.total_timesteps=1000"`. The right side is a number, a boolean or a null
            where YAML says so, YAML where it begins with a bracket or a quote, else a text as it
            stands.
        model: the config's class, `AppConfig` or one derived from it; `OpenConfig` keeps what is
            not keisei's as fields of your own.

    Returns:
        The validated config.

    Raises:
        ConfigError: the file cannot be read or parsed, a key stands twice, a reference is not
            resolved, or a key or value does not fit. The message names the file, the line, the key
            and the reason, and shows no value.
    """
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise ConfigError(f"a config's path is a text, not a {kind(path)}: {way_out(path)}")
    name = OVERRIDES if path is None else quoted(os.fspath(path), limit=300)
    sources = Sources(model, name)
    parsed = None if path is None else read_config(os.fspath(path), name)
    try:
        if path is not None and parsed is not None:
            sources.lay_file(os.fspath(path), parsed.data, parsed.lines, parsed.words)
        sources.lay_environment()
        for number, given in enumerate(_parsed_overrides(overrides), start=1):
            sources.lay_override(number, *given)
        return sources.config()
    except ConfigError:
        raise
    except (ValueError, RecursionError) as exc:
        problem = f"  {exc}"
    # Raised outside the except block: what was caught may hold what it was given.
    raise sources.unfit(problem)


def _parsed_overrides(overrides: Overrides | None) -> Iterable[tuple[list[str], Any, str | None]]:
    if overrides is None:
        return
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield str(key).split("."), value, None
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
        yield key.strip().split("."), parsed, word_of(value)
