"""Name the files and overrides that a config was composed of by Hydra."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keisei.config.layers import Given, Origin, Path, Tree, same
from keisei.config.lines import Lines, line_of
from keisei.config.ownership import KEISEI, OWN
from keisei.config.parsing import ParseError, parse_file
from keisei.config.schema import AppConfig, OpenConfig
from keisei.redaction.rule import Rule

_PACKAGE = Rule(r"\s*#\s*@package\s+([\w.]+)")
_LARGEST = 2**20  # characters in a file


@dataclass(frozen=True)
class _File:
    """A file of Hydra's: where it stands, where in the config its values go, and these."""

    path: str
    package: Path
    data: Any
    lines: Lines


def name_origins(config: AppConfig) -> None:
    """Note of each value that Hydra has composed which file, or which override, gave it; blocks.

    A value that no file says so stays one of the code. It does nothing outside Hydra.

    Args:
        config: a session's config.
    """
    module = sys.modules.get("hydra.core.hydra_config")
    if module is None or not isinstance(config, OpenConfig) or not module.HydraConfig.initialized():
        return
    settings = module.HydraConfig.get()
    files = list(_files(settings))
    groups = {str(group) for group in settings.runtime.choices}
    overrides = [str(each).lstrip("+~").partition("=")[0] for each in settings.overrides.task]
    # One that chooses a file of a group is no value's: the file is.
    overrides = ["" if each in groups or "@" in each else each for each in overrides]
    left: list[tuple[Path, Tree]] = [((), config._layers.tree)]
    while left:
        path, tree = left.pop()
        for name, below in tree.items():
            if isinstance(below, dict):
                left.append(((*path, name), below))
            elif below.origin.source == "code":
                tree[name] = _named(below, (*path, name), files, overrides)


def _named(given: Given, path: Path, files: list[_File], overrides: list[str]) -> Given:
    """Return what was given with the origin that Hydra's files and overrides explain."""
    for stood in (path, (KEISEI, *path), path[1:] if path[0] == OWN else ()):
        said = [_origin(file, stood, value) for file, value in _saying(files, stood)]
        beaten = tuple(reversed(said))
        key = ".".join(stood)
        for number in range(len(overrides), 0, -1):
            override = overrides[number - 1]
            if override and f"{key}.".startswith(f"{override}."):
                origin = Origin("override", given.origin.value, name=str(number))
                return Given(origin, (*beaten, *given.beaten))
        for nearest, origin in enumerate(beaten):
            if same(origin.value, given.origin.value):
                others = beaten[:nearest] + beaten[nearest + 1 :]
                return Given(origin, (*others, *given.beaten))
    return given


def _origin(file: _File, stood: Path, value: Any) -> Origin:
    line = line_of(file.lines, stood[len(file.package) :])
    return Origin("file", value, file.path, line)


def _saying(files: list[_File], stood: Path) -> Iterator[tuple[_File, Any]]:
    """Yield the files that have a value at a path, with it."""
    for file in files:
        below = stood[len(file.package) :]
        if not below or stood[: len(file.package)] != file.package:
            continue
        value = file.data
        for part in below:
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        else:
            yield file, value


def _files(settings: Any) -> Iterator[_File]:
    """Yield the files that Hydra has composed the config of, the primary one first."""
    folders = [each.path for each in settings.runtime.config_sources if each.schema == "file"]
    names: list[tuple[str, Path]] = [(str(settings.job.config_name or ""), ())]
    for group, choice in settings.runtime.choices.items():
        name, _, into = str(group).partition("@")
        if choice is not None and name.partition("/")[0] != "hydra":
            into = into or name.replace("/", ".")
            names.append((f"{name}/{choice}", _package(into)))
    for name, package in names:
        name = name.removesuffix(".yaml")
        for path in (os.path.join(folder, f"{name}.yaml") for folder in folders if name):
            if (file := _read(path, package)) is not None:
                yield file
                break


def _package(text: str) -> Path:
    return () if text == "_global_" else tuple(text.split("."))


def _read(path: str, package: Path) -> _File | None:
    try:
        with open(path, encoding="utf-8-sig") as opened:
            text = opened.read(_LARGEST)
        parsed = parse_file(text, "yaml")
    except (OSError, ValueError, ParseError, RecursionError):
        return None
    if (header := _PACKAGE.regex.match(text)) is not None and header[1] != "_group_":
        package = _package(header[1])
    return _File(path, package, parsed.data, parsed.lines)
