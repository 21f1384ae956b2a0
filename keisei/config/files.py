"""Reads a config from where it is: a file by its suffix, or a place of an installed source's.

A source has the name of the suffix (`.ini`), or of the scheme (`vault://team/run`), of what it
reads. keisei's own are those of YAML, JSON and TOML; others are entry points of the group
`keisei.config_sources`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Protocol, cast

from keisei._io.plugins import Kind, load
from keisei.config.parsing import SUFFIXES, Parsed, ParseError, parse_file
from keisei.config.plain import plain
from keisei.errors import ConfigError, KeiseiError, describe

_LARGEST = 16 * 2**20  # characters in a file
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")

SOURCE = Kind(
    "keisei.config_sources",
    "config source",
    dict.fromkeys(SUFFIXES, "keisei.config.files:read_file"),
    ConfigError,
)


_ENDS = "a config ends in .yaml, .yml, .json or .toml"


class ConfigSource(Protocol):
    """Reads configs of one kind, or from one kind of place."""

    def __call__(self, place: str) -> Mapping[str, object] | Parsed:
        """Return what a config holds: sections with their fields, as plain data; blocks.

        With `Parsed` it says on which lines the keys stand, too: an error about a value names it.

        Args:
            place: the path, or the URL, as `load_config` was given it.

        Raises:
            ConfigError: it is no config; the message shows no value of it.
            OSError: it cannot be read.
        """
        ...


def is_url(place: str) -> bool:
    """Return whether a place is a URL, and no path."""
    return _SCHEME.match(place) is not None


def source_of(place: str) -> str:
    """Return the name of the source that reads a place; empty where it has none.

    Args:
        place: a path or a URL.
    """
    if (scheme := _SCHEME.match(place)) is not None:
        return scheme[1].lower()
    _, dot, suffix = os.path.basename(place).rpartition(".")
    return suffix.lower() if dot else ""


def read_config(place: str, shown: str) -> Parsed:
    """Return what a config holds; blocks, and imports its source.

    Args:
        place: a path or a URL.
        shown: the same, as an error shows it.

    Raises:
        ConfigError: it cannot be read, or is no config. The message shows no value.
    """
    name = source_of(place)
    try:
        source = cast(ConfigSource, load(SOURCE, name)) if name else None
    except (KeiseiError, OSError, MemoryError) as exc:
        raise ConfigError(f"{shown} cannot be read: {exc}; {_ENDS}") from None
    if source is None:
        raise ConfigError(f"{shown}: {_ENDS}")
    return read_by(source, place, shown, is_own=name in SOURCE.own)


def read_by(source: ConfigSource, place: str, shown: str, *, is_own: bool = False) -> Parsed:
    """Return what a source reads, checked; blocks.

    Args:
        source: the source.
        place: a path or a URL.
        shown: the same, as an error shows it.
        is_own: whether the source is keisei's own.

    Raises:
        ConfigError: it cannot be read, or is no config. The message shows no value.
    """
    parsed: object = None
    try:
        parsed = source(place)
    except UnicodeDecodeError as exc:
        problem = f"cannot be read: byte {exc.start} is not UTF-8"
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror or exc}"
    except ConfigError as exc:
        problem = f"cannot be read: {exc}"
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - a source of somebody else's
        # Of others the message may be the config's text.
        reason = str(exc) if isinstance(exc, ParseError) else type(exc).__name__
        problem = f"is not a config: {reason}"
    else:
        problem = ""
    # Raised outside the except blocks, here and below: what was caught holds the file's text.
    if problem:
        raise ConfigError(f"{shown} {problem}")
    return _checked(parsed, shown, is_own=is_own)


def read_file(place: str) -> Parsed:
    """Return what a file of YAML, JSON or TOML holds; see `ConfigSource`.

    Args:
        place: its path, whose suffix decides its format.
    """
    with open(place, encoding="utf-8-sig") as file:
        text = file.read(_LARGEST)
    if len(text) == _LARGEST:
        raise ParseError(f"it has over {_LARGEST} characters")
    return parse_file(text, source_of(place))


def _checked(found: object, shown: str, *, is_own: bool) -> Parsed:
    """Return what a source has read, where that is a config.

    Raises:
        ConfigError: it is none.
    """
    parsed = found if isinstance(found, Parsed) else Parsed(found)
    data, problem = parsed.data, ""
    if isinstance(data, Mapping) and not is_own:
        try:
            data = plain(data)
        except Exception as exc:  # noqa: BLE001 - objects of somebody else's
            problem = str(exc) if isinstance(exc, ValueError) else type(exc).__name__
    if not isinstance(data, dict):
        held = "is empty" if data is None else f"holds a {type(data).__name__} at the top"
        way_out = "write sections such as `training:`, or pass no file for the defaults"
        problem = f"it {held}; {way_out}"
    if problem:
        raise ConfigError(f"{shown} is not a config: {problem}")
    if is_own:
        return parsed
    try:
        lines = {tuple(map(str, path)): int(line) for path, line in parsed.lines.items()}
    except (AttributeError, TypeError, ValueError) as exc:
        raise ConfigError(f"{shown}: its source's lines are none: {describe(exc)}") from None
    return Parsed(data, lines)
