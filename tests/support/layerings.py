"""Configs that are laid together at random from seven sources, and what is so known of each value.

Every source gives values that no other one gives, so that a wrong explanation shows.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keisei import AppConfig, Section, load_config
from keisei.config.layers import Origin

Where = tuple[str, ...]
Stack = list[tuple[str, Any, str | None, int | None]]  # source, value, name, line


class Inner(Section):
    """Values two sections deep."""

    number: int = 1
    text: str = "one"
    items: list[int] = [1]


class Outer(Section):
    """Values, a section and a mapping."""

    inner: Inner = Inner()
    share: float = 0.5
    table: dict[str, int] = {}


class LayeredConfig(AppConfig):
    """A config with sections of its own."""

    outer: Outer = Outer()


DEFAULTS: dict[Where, Any] = {
    ("outer", "inner", "number"): 1,
    ("outer", "inner", "text"): "one",
    ("outer", "inner", "items"): [1],
    ("outer", "share"): 0.5,
    ("training", "steps_per_epoch"): 2048,
    ("wandb", "group"): None,
    ("logging", "run_name"): None,
    ("logging", "model_dir"): None,
}
TEXTS = {
    ("outer", "inner", "text"),
    ("wandb", "group"),
    ("logging", "run_name"),
    ("logging", "model_dir"),
}
TABLE = [("outer", "table", key) for key in ("first", "second")]


class Layering:
    """One config, and of each of its values the sources that have given it, the last one in force.

    Args:
        seed: decides it all.
        place: a directory for its file.
    """

    def __init__(self, seed: int, place: Path) -> None:
        self._random = random.Random(seed)
        self._counter = itertools.count(1000 * seed + 10)
        self._place = place
        self.stacks: dict[Where, Stack] = {
            where: [("default", value, None, None)] for where, value in DEFAULTS.items()
        }
        self.environ: dict[str, str] = {}
        self.in_force: dict[Where, Origin] = {}

    def config(self) -> AppConfig:
        """Write the file, load it, and change the config as a program does."""
        path = self._file() if self._random.random() < 0.8 else None
        overrides = self._overrides()
        with set_in(self.environ):
            config = load_config(path, overrides, model=LayeredConfig)
        for where in self._some():
            value = self._value(where)
            part: Any = config
            for name in where[:-1]:
                part = part[name] if isinstance(part, dict) else getattr(part, name)
            if isinstance(part, dict):
                part[where[-1]] = value
            else:
                setattr(part, where[-1], value)
            self._note(where, "code", value)
        for where, source, name in (
            (("logging", "run_name"), "argument", "run_name"),
            (("logging", "model_dir"), "environment", "KEISEI_MODEL_DIR"),
        ):
            if self._random.random() < 0.3:
                value = self._value(where)
                self.in_force[where] = Origin(source, value, name=name)  # type: ignore[arg-type]
                self._note(where, source, value, name)
        return config

    def _note(
        self,
        where: Where,
        source: str,
        value: Any,
        name: str | None = None,
        line: int | None = None,
    ) -> None:
        self.stacks.setdefault(where, []).append((source, value, name, line))

    def _some(self) -> list[Where]:
        every = [*DEFAULTS, *TABLE]
        return self._random.sample(every, self._random.randrange(len(every)) // 2)

    def _value(self, where: Where) -> Any:
        number = next(self._counter)
        if where in TEXTS:
            return f"v{number}"
        if where[-1] == "items":
            return [number]
        return number + 0.5 if where[-1] == "share" else number

    def _written(self, where: Where) -> tuple[str, Any, str | None]:
        """Return a source, the value that it writes, and its variable: a reference, or a value."""
        value = self._value(where)
        if where in TEXTS and self._random.random() < 0.4:
            variable = f"LAYERED_{next(self._counter)}"
            if self._random.random() < 0.7:
                self.environ[variable] = str(value)
                return "environment", f"${{{variable}}}", variable
            return "file", f"${{{variable}:-{value}}}", None
        return "file", value, None

    def _file(self) -> Path:
        tree: dict[str, Any] = {}
        for where in self._some():
            part = tree
            for name in where[:-1]:
                part = part.setdefault(name, {})
            part[where[-1]] = self._written(where)
        suffix = self._random.choice(["yaml", "json", "toml"]) if tree else "json"
        lines: list[str] = []
        write = {"yaml": self._yaml, "json": self._json, "toml": self._toml}[suffix]
        write(tree, lines, ())
        path = self._place / f"c.{suffix}"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _noise(self, lines: list[str], mark: str) -> None:
        lines += [f"{mark} nothing"] * self._random.randrange(3) if mark else [""]

    def _yaml(self, tree: Mapping[str, Any], lines: list[str], path: Where) -> None:
        for key, value in tree.items():
            indent = "  " * len(path)
            self._noise(lines, f"{indent}#")
            if isinstance(value, dict):
                lines.append(f"{indent}{key}:")
                self._yaml(value, lines, (*path, key))
            else:
                lines.append(f"{indent}{key}: {json.dumps(value[1])}")
                self._note((*path, key), value[0], value[1], value[2], len(lines))

    def _json(self, tree: Mapping[str, Any], lines: list[str], path: Where) -> None:
        lines.append("{")
        for number, (key, value) in enumerate(tree.items()):
            self._noise(lines, "")
            comma = "," if number + 1 < len(tree) else ""
            if isinstance(value, dict):
                lines.append(f'"{key}":')
                self._json(value, lines, (*path, key))
                lines[-1] += comma
            else:
                lines.append(f'"{key}": {json.dumps(value[1])}{comma}')
                self._note((*path, key), value[0], value[1], value[2], len(lines))
        lines.append("}")

    def _toml(self, tree: Mapping[str, Any], lines: list[str], path: Where) -> None:
        for key, value in tree.items():
            if not isinstance(value, dict):
                self._noise(lines, "#")
                lines.append(f"{key} = {json.dumps(value[1])}")
                self._note((*path, key), value[0], value[1], value[2], len(lines))
        for key, value in tree.items():
            if isinstance(value, dict):
                lines.append(f"[{'.'.join((*path, key))}]")
                self._toml(value, lines, (*path, key))

    def _overrides(self) -> Any:
        given = [(where, self._written(where)) for where in self._some()]
        if self._random.random() < 0.5:
            for number, (where, (source, value, name)) in enumerate(given, start=1):
                source = "override" if source == "file" else source
                self._note(where, source, value, name or str(number))
            return [f"{'.'.join(where)}={json.dumps(value)}" for where, (_, value, _) in given]
        nested: dict[str, Any] = {}
        for where, (_, value, _) in given:
            part = nested.setdefault(where[0], {})
            for name in where[1:-1]:
                part = part.setdefault(name, {})
            part[where[-1]] = value
        numbers = {section: str(number) for number, section in enumerate(nested, start=1)}
        for where, (source, value, name) in given:
            source = "override" if source == "file" else source
            self._note(where, source, value, name or numbers[where[0]])
        return nested


@contextmanager
def set_in(environ: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment for a `with` block."""
    os.environ.update(environ)
    try:
        yield
    finally:
        for name in environ:
            del os.environ[name]
