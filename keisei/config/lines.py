"""On which line of a config's text each key stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Path = tuple[str, ...]
Key = tuple[Path, int, int | None]  # its path, its line, and an earlier one where it stands twice
Lines = dict[Path, int]
Words = dict[Path, str]

# Aliases of YAML can make endlessly many of a few lines, and one can stand in itself.
_MOST, _DEEPEST = 20_000, 32


def of_keys(keys: Iterable[tuple[Path, int]]) -> Lines:
    """Return the line of each key that stands in no list, the first where several do.

    Args:
        keys: paths, each with its line; an empty part of a path is a list.
    """
    lines: Lines = {}
    for path, line in keys:
        if "" not in path and len(lines) < _MOST:
            lines.setdefault(path, line)
    return lines


def of_nodes(root: Any) -> Lines:
    """Return the line of each key of a tree of YAML nodes whose merged keys come first.

    Args:
        root: the topmost node.
    """
    lines: Lines = {}
    left: list[tuple[Any, Path]] = [(root, ())]
    while left and len(lines) < _MOST:
        node, path = left.pop()
        if node.id != "mapping" or len(path) >= _DEEPEST:
            continue
        named = {key.value: (key, value) for key, value in node.value if key.id == "scalar"}
        for name, (key, value) in named.items():
            lines[*path, name] = key.start_mark.line + 1
            left.append((value, (*path, name)))
    return lines


def words_of(root: Any) -> Words:
    """Return the words of a tree of YAML nodes that are booleans to YAML, by their paths.

    Args:
        root: the topmost node; its merged keys come first.
    """
    words: Words = {}
    left: list[tuple[Any, Path]] = [(root, ())]
    met = 0
    while left and met < _MOST:
        node, path = left.pop()
        met += 1
        if len(path) >= _DEEPEST:
            continue
        if node.id == "mapping":
            left += [(value, (*path, key.value)) for key, value in node.value if key.id == "scalar"]
        elif node.id == "sequence":
            left += [(item, (*path, str(number))) for number, item in enumerate(node.value)]
        elif node.tag.endswith(":bool") and is_word(node.value):
            words[path] = node.value
    return words


def is_word(text: str) -> bool:
    """Return whether a text is a boolean to YAML and may be a word: `on`, `off`, `yes`, `no`."""
    return text.lower() in ("on", "off", "yes", "no")


def line_of(lines: Lines, path: Path) -> int | None:
    """Return the line of a key, or of what it stands in where its own is not known."""
    for length in range(len(path), 0, -1):
        if (line := lines.get(path[:length])) is not None:
            return line
    return None
