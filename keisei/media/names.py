"""Which names media may have: they name no file of the run's, but trackers make files of them."""

from __future__ import annotations

import unicodedata

from keisei.errors import MediaError, quoted

_LONGEST = 256  # characters
_UNSEEN = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])  # controls, marks of direction, surrogates


def check_name(name: object) -> str:
    """Return a name as a text of its own, where it is a safe one: as `samples/cat 3`.

    Args:
        name: the name.

    Raises:
        MediaError: it is no text, or could lead elsewhere or hide something.
    """
    if not isinstance(name, str):
        raise MediaError(f"name: must be a string, not {type(name).__name__}")
    problem = _problem(str.__str__(name))
    if problem:
        raise MediaError(
            f"name: {quoted(name)} {problem}; use words that are joined with `/`, such as "
            "'samples/cat'"
        )
    return str.__str__(name)


def _problem(name: str) -> str | None:
    if not name:
        return "is empty"
    if len(name) > _LONGEST:
        return f"is longer than {_LONGEST} characters"
    if any(unicodedata.category(char) in _UNSEEN for char in name):
        return "holds a character that cannot be seen"
    if "\\" in name:
        return "holds a backslash"
    if any(part.strip() in ("", ".", "..") for part in name.split("/")):
        return "holds an empty part, or one that leads elsewhere"
    return None
