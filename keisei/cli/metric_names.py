"""Select metrics by name or pattern, and format their names and numbers."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from rich.cells import cell_len
from rich.console import Console

from keisei.cli.shared import is_bounded, plain
from keisei.errors import quoted
from keisei.journal.records import as_float

_LONGEST = 200  # columns of a name in a table in a terminal


def select(wanted: Sequence[str], keys: Sequence[str]) -> list[int]:
    """Return the indices of the keys that are wanted; all where nothing is.

    Args:
        wanted: names, or patterns as the shell has them; the name of a key is no pattern.
        keys: the names of metrics.
    """
    patterns = [pattern for pattern in wanted if pattern not in keys]
    return [
        index
        for index, key in enumerate(keys)
        if not wanted or key in wanted or any(fnmatchcase(key, pattern) for pattern in patterns)
    ]


def missing(wanted: Iterable[str], keys: Iterable[str]) -> str | None:
    """Return which of the wanted metrics is missing, and what there is; ``None`` if none is."""
    there = sorted(keys)
    for name in wanted:
        if not select([name], there):
            near = difflib.get_close_matches(name, there, 5) or there[:5]
            more = f" and {len(there) - len(near)} more" if len(there) > len(near) else ""
            listed = (
                f": there is {', '.join(map(quoted, near))}{more}" if near else ": there is none"
            )
            return f"there is no metric {quoted(name)}{listed}"
    return None


def short_number(value: float) -> str:
    """Return a number with few significant digits."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) < 10**9:
        return str(value)
    return f"{as_float(value):.4g}"


def shorten(text: str, width: int, console: Console) -> str:
    """Return printable text of at most so many columns: what is too long loses its middle.

    Args:
        text: anything; what is not printable is escaped.
        width: how many columns.
        console: where it goes.
    """
    text = plain(text, console)
    if cell_len(text) <= width:
        return text
    mark = "…" if console.encoding.lower().startswith("utf") else "..."
    left = (width - len(mark) + 1) // 2
    return _fit(text, left) + mark + _fit(text[::-1], width - len(mark) - left)[::-1]


def name_in_table(name: str, console: Console) -> str:
    """Return a metric's name, made harmless; a terminal is not filled by a single one."""
    return shorten(name, _LONGEST, console) if is_bounded(console) else plain(name, console)


def _fit(text: str, width: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += cell_len(character)
        if used > width:
            return text[:index]
    return text
