"""Resolve `${NAME}` in the texts of a config from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from keisei.redaction.rule import Rule

_REFERENCE = Rule(r"\$(\$?)\{([^{}]*)\}")
_IN_PATH = Rule(r"\$\{|(?:^|/)\$[\w(]")
_NAME = Rule(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)

_INTERPOLATIONS = (
    "a file with OmegaConf's interpolations is loaded by OmegaConf, and a session takes what that "
    "returns"
)


class UnresolvedError(ValueError):
    """A reference that the environment does not resolve; its message shows no value.

    Args:
        where: the key path of the text that it stands in.
        problem: why it is not resolved.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


def resolve(data: Any, environ: Mapping[str, str], where: str = "") -> Any:
    """Return plain data with the references in its texts resolved.

    `${NAME}` is the variable's value; `${NAME:-text}` is the text where the variable is unset or
    empty; `$${NAME}` is the text `${NAME}`. Keys stay as they are.

    Args:
        data: nested dicts and lists of plain values.
        environ: the variables.
        where: the key path of the data, for the message.

    Raises:
        UnresolvedError: there is no such variable, or a reference is something else.
    """
    if isinstance(data, str) and "${" in data:
        return _REFERENCE.regex.sub(lambda found: _resolved(found, environ, where), data)
    below = f"{where}." if where else ""
    if isinstance(data, Mapping):
        return {key: resolve(value, environ, f"{below}{key}") for key, value in data.items()}
    if isinstance(data, list):
        return [resolve(item, environ, f"{below}{n}") for n, item in enumerate(data)]
    return data


def has_reference(data: Any) -> bool:
    """Return whether a text, or one in a list, holds a reference or an interpolation."""
    if isinstance(data, list):
        return any(has_reference(item) for item in data)
    return isinstance(data, str) and "${" in data


def variables_in(data: Any, environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that the references in plain data take their values from.

    Args:
        data: nested dicts and lists of plain values.
        environ: the variables.
    """
    if isinstance(data, str) and "${" in data:
        names = [_NAME.regex.fullmatch(f[2]) for f in _REFERENCE.regex.finditer(data) if not f[1]]
        return [found[1] for found in names if found is not None and environ.get(found[1])]
    if isinstance(data, (Mapping, list)):
        inner = data.values() if isinstance(data, Mapping) else data
        return [name for value in inner for name in variables_in(value, environ)]
    return []


def problem_of_path(path: str) -> str | None:
    """Return why a path is no path yet: it holds a reference, or a `~` whose home is not known.

    Args:
        path: the path, in which a leading `~` has been expanded.
    """
    if _IN_PATH.regex.search(path):
        return "a reference to a variable is not resolved"
    return "no home directory is known for its ~" if path.startswith("~") else None


def _resolved(found: re.Match[str], environ: Mapping[str, str], where: str) -> str:
    escaped, inner = found.groups()
    if escaped:
        return found[0][1:]
    named = _NAME.regex.fullmatch(inner)
    if named is None:
        raise UnresolvedError(
            where,
            "a reference is not resolved: `${NAME}` and `${NAME:-text}` take the environment "
            f"variable NAME, and `$${{NAME}}` is the text `${{NAME}}`; {_INTERPOLATIONS}",
        )
    name, default = named.groups()
    value = environ.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise UnresolvedError(
            where,
            f"`${{{name}}}` is not resolved: the environment has no variable {name}; set it, or "
            f"write `$${{{name}}}` where the text itself is meant; {_INTERPOLATIONS}",
        )
    return value
