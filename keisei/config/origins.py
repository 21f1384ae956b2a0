"""Where each value of a config came from, and what it beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic_core

from keisei.config.layers import (
    Layers,
    Origin,
    OriginOf,
    Path,
    Source,
    kept,
    last_given,
    remembered,
    same,
)
from keisei.config.leaves import ABSENT, Leaf, leaves, values
from keisei.config.lines import Lines, line_of
from keisei.config.references import has_reference, variables_in
from keisei.config.schema import AppConfig
from keisei.redaction import HIDDEN, redact

MOST = 10_000  # values whose origins are written


@dataclass(frozen=True)
class Explained:
    """Where one value of a config came from.

    Attributes:
        path: the value's path.
        origin: its source.
        beaten: the sources that it goes before, the nearest first.
        is_secret: whether the type of its field hides it.
    """

    path: Path
    origin: Origin
    beaten: tuple[Origin, ...]
    is_secret: bool


def in_file(file: str, lines: Lines, environ: Mapping[str, str]) -> OriginOf:
    """Return what makes the origins of the values in a file.

    Args:
        file: its path.
        lines: the line of each key in it.
        environ: the variables that references in it are resolved from.
    """

    def origin_of(path: Path, value: Any) -> Origin:
        names = ", ".join(variables_in(value, environ))
        source: Source = "environment" if names else "file"
        return Origin(source, kept(value), file, line_of(lines, path), names or None)

    return origin_of


def in_override(number: int, environ: Mapping[str, str]) -> OriginOf:
    """Return what makes the origins of the values in an override.

    Args:
        number: which override it is, from 1 on.
        environ: the variables that references in it are resolved from.
    """

    def origin_of(path: Path, value: Any) -> Origin:
        names = ", ".join(variables_in(value, environ))
        source: Source = "environment" if names else "override"
        return Origin(source, kept(value), name=names or str(number))

    return origin_of


def remember(config: AppConfig, layers: Layers) -> None:
    """Keep with a config what it was loaded from, and its values as they are now.

    Args:
        config: the config; nothing of what it holds is changed.
        layers: its sources.
    """
    layers.loaded = {path: remembered(value) for path, value in values(config)}
    config._layers = layers


def explain(config: AppConfig, in_force: Mapping[Path, Origin]) -> Iterator[Explained]:
    """Yield where each value of a config came from.

    Args:
        config: the config, as it is now.
        in_force: what goes before values of the config, by their paths.
    """
    layers: Layers = config._layers
    for leaf in leaves(config, layers.tree):
        origin, beaten = _origin(leaf, layers)
        if leaf.path in in_force:
            origin, beaten = in_force[leaf.path], (origin._replace(value=leaf.value), *beaten)
        yield Explained(leaf.path, origin, beaten, leaf.is_secret)


def _origin(leaf: Leaf, layers: Layers) -> tuple[Origin, tuple[Origin, ...]]:
    default = () if leaf.default is ABSENT else (Origin("default", leaf.default),)
    given = last_given(leaf.given)
    if given is not None:
        known, beaten = given.origin, (*given.beaten, *default)
    elif same(leaf.value, leaf.default) or not (leaf.is_set or default):
        known, beaten = Origin("default", leaf.value), ()
    else:  # set by the program, or by a validator of its model
        known, beaten = Origin("code", leaf.value), default
    if layers.loaded is not None:
        before = layers.loaded.get(leaf.path, ABSENT)
        if before is ABSENT:
            return Origin("code", leaf.value), default
        if not same(before, leaf.value):
            if known.source == "code":
                return Origin("code", leaf.value), beaten
            return Origin("code", leaf.value), (known, *beaten)[: None if given else 1]
    return known, beaten


def as_data(
    config: AppConfig,
    effective: Mapping[str, Any],
    in_force: Mapping[Path, Origin],
    known: tuple[str, ...],
) -> dict[str, Any]:
    """Return the origins of a config's values as plain data, secrets hidden.

    A value that a reference or an interpolation gave has it as `written`.

    Args:
        config: the config.
        effective: the same as it is shown: plain data, secrets hidden.
        in_force: what goes before values of the config, by their paths.
        known: values to hide wherever they stand.
    """
    values: dict[str, Any] = {}
    left_out = 0
    for one in explain(config, in_force):
        if len(values) >= MOST:
            left_out += 1
            continue
        shown = _at(effective, one.path)
        hide = one.is_secret or HIDDEN in repr(shown)
        if one.path in in_force:
            shown = _shown(one.path, one.origin.value, known, hide=hide)
        written = {}
        if has_reference(one.origin.value) and one.path not in in_force:
            written["written"] = _shown(one.path, one.origin.value, known, hide=hide)
        values[dotted(one.path)] = {
            "value": shown,
            **written,
            **_about(one.origin, known),
            "beat": [
                {**_about(each, known), "value": _shown(one.path, each.value, known, hide=hide)}
                for each in one.beaten
            ],
        }
    return {"format": 1, "values": values, "left_out": left_out}


def dotted(path: Path) -> str:
    """Return a path as a text; a key with a dot in it is quoted."""
    return ".".join(repr(part) if "." in part else part for part in path)


def _about(origin: Origin, known: tuple[str, ...]) -> dict[str, Any]:
    about = {"source": origin.source, "file": origin.file, "line": origin.line, "name": origin.name}
    return {key: redact(value, known) for key, value in about.items() if value is not None}


def _at(data: Any, path: Path) -> Any:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data


def _shown(path: Path, value: Any, known: tuple[str, ...], *, hide: bool) -> Any:
    """Return a value as it may be shown: hidden where its key or its type says so."""
    if hide and value is not None and not isinstance(value, bool):
        return HIDDEN
    plain = pydantic_core.to_jsonable_python(
        value, inf_nan_mode="strings", fallback=lambda other: f"<{type(other).__name__}>"
    )
    *above, last = path
    nested = {last: plain}
    if above:
        nested = {above[-1]: nested}
    return _at(redact(nested, known), path[-2:])
