"""The conformance kit of config sources: checks that one reads all of a config, and leaks none."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from keisei.config.files import ConfigSource, read_by
from keisei.config.parsing import Parsed
from keisei.config.plain import plain
from keisei.errors import ConfigError, describe


def check_config_source(
    source: ConfigSource,
    place: str,
    expected: Mapping[str, object],
    *,
    missing: str,
    damaged: str | None = None,
    secret: str | None = None,
) -> list[str]:
    """Check that a config source keeps to the protocol; call it in a test of your source.

    Args:
        source: the source.
        place: a path or URL that it reads.
        expected: what a config there holds.
        missing: a place of its kind where nothing is.
        damaged: a place that holds something that is no config.
        secret: a text in the config at `damaged` that no error may show.

    Returns:
        What was checked, a sentence each.

    Raises:
        AssertionError: a check has failed; the message says which, and how.
    """
    checked = ["it reads a config whole, the same each time"]
    parsed = _read(source, place)
    _require(
        parsed.data == plain(expected),
        f"it has read other keys or values than expected: {sorted(parsed.data)}",
    )
    _require(_read(source, place) == parsed, "it does not read the same twice")
    known = set(_paths(parsed.data))
    if strays := [path for path in parsed.lines if path not in known]:
        raise AssertionError(f"check_config_source: a line is said of keys that are none: {strays}")
    checked.append("each line that it says is of a key that stands there")
    _refuses(source, missing, "where nothing is", secret)
    checked.append("where nothing is, that is an OSError or a ConfigError")
    if damaged is not None:
        _refuses(source, damaged, "where no config is", secret)
        checked.append("what is no config is an error that shows no value of it")
    return checked


def _read(source: ConfigSource, place: str) -> Parsed:
    try:
        return read_by(source, place, "the config")
    except ConfigError as exc:
        raise AssertionError(f"check_config_source: {exc}") from exc


def _refuses(source: ConfigSource, place: str, what: str, secret: str | None) -> None:
    try:
        source(place)
    except (OSError, ConfigError) as exc:
        shown = "".join(traceback.format_exception(exc))
        _require(secret is None or secret not in shown, f"{what}, its error shows the secret")
        return
    except BaseException as exc:
        problem = f"{what}, it raises {describe(exc)}: raise an OSError or a ConfigError"
        raise AssertionError(f"check_config_source: {problem}") from exc
    raise AssertionError(f"check_config_source: {what}, it raises nothing")


def _paths(data: object, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(data, dict):
        return []
    found = []
    for key, value in data.items():
        found += [(*above, key), *_paths(value, (*above, key))]
    return found


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise AssertionError(f"check_config_source: {problem}")
