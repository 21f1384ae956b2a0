"""Lay the sources of a config over each other, and validate what comes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import core_schema

from keisei._log import logger
from keisei.config.environment import PREFIX, variables
from keisei.config.files import is_url
from keisei.config.layers import Layers, Origin, OriginOf, Path, kept, last_given
from keisei.config.lines import Lines, Words, line_of
from keisei.config.origins import in_file, in_override, remember
from keisei.config.ownership import KEISEI, OWN, Sections, mixed, placed
from keisei.config.references import UnresolvedError, resolve
from keisei.config.schema import AppConfig, OpenConfig
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
OVERRIDES = "the overrides"
ENVIRONMENT = "the environment"


class Sources(Generic[ConfigT]):
    """The sources of one config, each laid over those before it.

    Args:
        model: the config's class.
        name: what an error calls the sources.

    Attributes:
        stage: the source that is being laid, for an error about it.
        data: the config so far, as plain data.
    """

    def __init__(self, model: type[ConfigT], name: str) -> None:
        self.model, self.name, self.stage = model, name, name
        self.data: dict[str, Any] = {}
        self._layers, self._is_object = Layers(), False
        self._texts: dict[Path, str] = {}  # of what may be meant as the text that it is written as

    def lay_file(self, file: str, data: dict[str, Any], lines: Lines, words: Words) -> None:
        """Lay what stands in a file, or at a URL.

        Args:
            file: its path, or the URL.
            data: what stands in it.
            lines: the line of each key.
            words: what in it may be meant as the text that it is written as.

        Raises:
            ValueError: it holds too much, or a reference in it is not resolved.
        """
        weigh(data)
        where_from = file if is_url(file) else os.path.abspath(file)
        origin_of = in_file(where_from, lines, os.environ)
        for path, stood, value in self._placed(data):
            self._layers.put(path, value, _moved(origin_of, path, stood), dotted=False)
            self._texts |= {
                (*path, *where[len(stood) :]): word
                for where, word in words.items()
                if where[: len(stood)] == stood
            }
            where = ".".join(stood)
            try:
                self._merge(path, resolve(value, os.environ, where))
            except UnresolvedError as exc:
                line = line_of(lines, tuple(exc.where.split(".")))
                problem = f"{exc}; line {line}" if line is not None else str(exc)
            else:
                continue
            raise ValueError(problem)

    def lay_object(self, kind: str, written: dict[str, Any], data: dict[str, Any]) -> None:
        """Lay a config of another kind.

        Args:
            kind: what kind it is of.
            written: it as plain data, as it was written.
            data: the same, its interpolations resolved.

        Raises:
            ValueError: it holds too much.
        """
        weigh(data)
        self._is_object = True
        for path, stood, value in self._placed(data):
            self._merge(path, value)
            as_written: Any = written
            for part in stood:
                as_written = as_written.get(part) if isinstance(as_written, dict) else as_written
            self._layers.put(
                path,
                as_written,
                lambda _, each: Origin("code", kept(each), name=kind),
                dotted=False,
            )

    def lay_environment(self) -> None:
        """Lay what the variables `KEISEI__SECTION__FIELD` say.

        Raises:
            ValueError: one of them names no section, does not parse, or is not resolved.
        """
        before, self.stage = self.stage, ENVIRONMENT
        for name, keys, value in variables(os.environ, list(self.model.model_fields)):
            path = tuple(keys)
            self._layers.put(
                path,
                value,
                partial(_of_variable, name),
                dotted=False,
            )
            if not isinstance(value, dict):
                self._texts[path] = os.environ[name].strip()
            self._merge(path, resolve(value, os.environ, name))
        self.stage = before

    def lay_override(self, number: int, keys: list[str], value: Any, word: str | None) -> None:
        """Lay one override.

        Args:
            number: which one it is, from 1 on.
            keys: the parts of its key.
            value: its value.
            word: it as it was written, where it is one of `on`, `off`, `yes` and `no`.

        Raises:
            ValueError: it holds too much, or a reference in it is not resolved.
        """
        self.stage = OVERRIDES
        weigh(value)
        self._layers.put(tuple(keys), value, in_override(number, os.environ), dotted=True)
        if word is not None:
            self._texts[tuple(keys)] = word
        _set(self.data, keys, resolve(value, os.environ, ".".join(keys)))

    def config(self) -> ConfigT:
        """Return the validated config, which knows its sources.

        Raises:
            ValueError: it holds too much.
            ConfigError: it does not fit the model.
        """
        weigh(self.data)
        hidden = [] if self._is_object else hidden_keys(self.data)
        problems = [f"  {_HIDDEN_NOTE.format(key)}" for key in hidden][:_SHOWN]
        name = self.name
        if not problems:
            config, errors = self._validated()
            if config is not None:
                remember(config, self._layers)
                return config
            labels = [self._label(error["loc"]) for error in errors]
            for source, label in ((OVERRIDES, "an override"), (ENVIRONMENT, PREFIX)):
                if all(each is not None and each.startswith(label) for each in labels):
                    name = source
                    labels = [None] * len(labels) if source == OVERRIDES else labels
            hinted: set[tuple[int | str, ...]] = set()
            problems = [
                self._explained(error, hinted) + (f"; {label}" if label else "")
                for error, label in zip(errors[:_SHOWN], labels, strict=False)
            ]
            if len(errors) > _SHOWN:
                problems.append(f"  and {len(errors) - _SHOWN} more")
        raise self.unfit("\n".join(problems), name)

    def unfit(self, problems: str, name: str | None = None) -> ConfigError:
        """Return the error that the sources do not make a config.

        Args:
            problems: what is wrong, indented.
            name: which source; the one that is being laid unless given.
        """
        name = self.stage if name is None else name
        verb = "do" if name == OVERRIDES else "does"
        return ConfigError(f"{name} {verb} not fit {self.model.__name__}:\n{problems}")

    def _validated(self) -> tuple[ConfigT | None, list[Any]]:
        """Return the config, else what is wrong with it.

        What is refused, and may be meant as the text that it was written as, is tried as that.
        """
        errors: list[Any] = []
        for _ in range(2):
            try:
                return self.model.model_validate(self.data), []
            except ValidationError as exc:
                errors = errors or [*exc.errors(include_url=False)]
            texts = [self._text_at(error["loc"], error["input"]) for error in errors]
            for path, text in filter(None, texts):
                _replace(self.data, path, text)
            if not any(texts):
                break
        return None, errors

    def _text_at(self, loc: tuple[int | str, ...], value: Any) -> tuple[Path, str] | None:
        """Return the text that what an error is about was written as, and its path."""
        path = tuple(str(part) for part in loc)
        # Of a list, only as a whole; a path that is longer than the text's names a kind of it.
        shortest = len(path) if isinstance(value, list) else 1
        for length in range(len(path), shortest - 1, -1):
            if (text := self._texts.get(path[:length])) is not None:
                return path[:length], text
        return None

    def _placed(self, data: dict[str, Any]) -> Iterator[tuple[Path, Path, Any]]:
        if not issubclass(self.model, OpenConfig):
            return iter([((), (), data)])
        data = {str(key): value for key, value in data.items()}
        sections = sections_of(self.model)
        for name, others in mixed(data, sections).items():
            logger.warning(
                "%s: its `%s` is taken for a section of your own, for keisei's has no %s; what is "
                "keisei's stands under the key `%s` where there is one",
                self.name,
                name,
                ", ".join(quoted(each, 60) for each in others[:5]),
                KEISEI,
            )
        return placed(data, sections)

    def _merge(self, path: Path, value: Any) -> None:
        data = self.data
        if not path:
            for key, inner in value.items():
                _merge(data, key, inner)
            return
        for part in path[:-1]:
            inner = data.get(part)
            if not isinstance(inner, dict):
                inner = data[part] = {}
            data = inner
        _merge(data, path[-1], value)

    def _label(self, loc: tuple[int | str, ...]) -> str | None:
        """Return what of the sources an error is about, where that is known."""
        tree: Any = self._layers.tree
        for part in loc:
            below = tree.get(str(part)) if isinstance(tree, dict) else None
            if below is None:
                break
            tree = below
        given = last_given(tree)
        if given is None:
            return None
        origin = given.origin
        if origin.file is not None:
            return None if origin.line is None else f"line {origin.line}"
        if origin.source == "environment" and (origin.name or "").upper().startswith(PREFIX):
            return origin.name
        return None if origin.source == "code" else "an override"

    def _explained(self, error: Any, hinted: set[tuple[int | str, ...]]) -> str:
        """Describe an error by its key and reason, without the value: it may be a secret.

        What is known at a place is said once: `hinted` has the paths where it was.
        """
        path = [str(part) for part in error["loc"]]
        where = quoted(".".join(path), limit=200)[1:-1] or "the top level"
        if error["type"] == "extra_forbidden":
            close, known = self._hints(path)
            if not close and error["loc"][:-1] in hinted:
                return f"  {where}: unknown key"
            if not close:
                hinted.add(error["loc"][:-1])
            return f"  {where}: unknown key; {close or known}"
        if error["type"] not in _VALUELESS:
            # A validator of the user's own: its message is its author's, and may hold the value.
            return f"  {where}: refused by the validator of this field"
        hint = "; in quotes it is a text" if error["type"] == "string_type" else ""
        return f"  {where}: {error['msg']} (it is a {type(error['input']).__name__}{hint})"

    def _hints(self, path: list[str]) -> tuple[str, str]:
        """Return of an unknown key which one is like it, if any, and what is known there."""
        import difflib

        known = _fields_at(self.model, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"known here: {', '.join(known)}"
        if len(path) == 1:
            hint += "; for fields of your own pass model=OpenConfig, or a class that you derive"
        elif issubclass(self.model, OpenConfig):
            hint += f"; your own `{path[0]}` is `{OWN}.{path[0]}`"
        return (f"did you mean `{close[0]}`?" if close else ""), hint


def sections_of(model: type[AppConfig]) -> Sections:
    """Return the sections of a config's class, each with the names of its fields.

    Args:
        model: the class.
    """
    return {name: _fields_at(model, [name]) for name in model.model_fields}


def _of_variable(name: str, path: Path, value: Any) -> Origin:
    return Origin("environment", kept(value), name=name)


def _moved(origin_of: OriginOf, path: Path, stood: Path) -> OriginOf:
    """Return what makes the origins of a part that stood elsewhere in its source."""
    if path == stood:
        return origin_of
    return lambda where, value: origin_of((*stood, *where[len(path) :]), value)


def _merge(data: dict[str, Any], key: str, value: Any) -> None:
    there = data.get(key)
    if isinstance(value, Mapping) and isinstance(there, dict):
        for name, inner in value.items():
            _merge(there, name, inner)
    else:
        data[key] = value


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


def _replace(data: Any, path: Path, text: str) -> None:
    """Replace a value that is there by a text."""
    for part in path[:-1]:
        data = data[int(part)] if isinstance(data, list) else data[part]
    data[int(path[-1]) if isinstance(data, list) else path[-1]] = text


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        kinds = [field.annotation, *get_args(field.annotation)] if field else []
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)
