"""What a config was made of: which source gave which value, and what that beat."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

Path = tuple[str, ...]
Source = Literal["default", "file", "environment", "override", "argument", "code"]


class Origin(NamedTuple):
    """One source of a value.

    Attributes:
        source: what kind of source it is; `environment` is a variable, or a reference to one.
        value: what it has given, as it was written there.
        file: the config's file, where it stands in one.
        line: its line there, from 1 on, where known.
        name: the override's number, the variable, or the argument.
    """

    source: Source
    value: Any = None
    file: str | None = None
    line: int | None = None
    name: str | None = None


class Given(NamedTuple):
    """A value that a source has given.

    Attributes:
        origin: the source.
        beaten: the sources that it goes before, the nearest first.
    """

    origin: Origin
    beaten: tuple[Origin, ...] = ()


Tree = dict[str, "Tree | Given"]
OriginOf = Callable[[Path, Any], Origin]


class Layers:
    """The sources that a config was loaded from, laid over each other as its values were.

    It equals any other: two configs with the same values are equal wherever they come from.

    Attributes:
        tree: what was given, nested as the config is.
        loaded: the config's values when it was loaded, by path; ``None`` where it was not.
    """

    def __init__(self) -> None:
        self.tree: Tree = {}
        self.loaded: dict[Path, Any] | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layers)

    __hash__ = None  # type: ignore[assignment]

    def put(self, path: Path, value: Any, origin_of: OriginOf, *, dotted: bool) -> None:
        """Lay a value over what there is; a mapping is merged into the one that is there.

        Args:
            path: where it goes.
            value: plain data.
            origin_of: returns the origin of a part of it.
            dotted: whether the keys in it are paths, as those of overrides are.
        """
        left: list[tuple[Path, Any]] = [(path, value)]
        while left:
            path, value = left.pop()
            if isinstance(value, Mapping) and value:
                left += reversed(
                    [
                        ((*path, *(str(key).split(".") if dotted else (str(key),))), inner)
                        for key, inner in value.items()
                    ]
                )
            elif path:
                self._put(path, value, origin_of(path, value))

    def _put(self, path: Path, value: Any, origin: Origin) -> None:
        tree, beaten = self.tree, list[Origin]()
        for part in path[:-1]:
            below = tree.get(part)
            if not isinstance(below, dict):
                if below is not None:
                    beaten += [below.origin, *below.beaten]
                below = tree[part] = {}
            tree = below
        there = tree.get(path[-1])
        if there is None and not beaten:
            tree[path[-1]] = Given(origin)
            return
        if isinstance(value, Mapping) and isinstance(there, dict):
            return  # an empty one, which changes nothing
        for given in _givens(there):
            beaten += [given.origin, *given.beaten]
        tree[path[-1]] = Given(origin, tuple(beaten))


def _givens(tree: Tree | Given | None) -> Iterator[Given]:
    """Yield what was given at or below a part of the tree."""
    if isinstance(tree, Given):
        yield tree
    elif tree is not None:
        for below in tree.values():
            yield from _givens(below)


def last_given(tree: Tree | Given | None) -> Given | None:
    """Return what was given at a part of a tree; of several below it, the last one."""
    return deque(_givens(tree), maxlen=1).pop() if tree else None


def kept(value: Any) -> Any:
    """Return a value as it may be kept: plain data as a copy, of anything else its kind."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): kept(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [kept(inner) for inner in value]
    return f"<{type(value).__name__}>"


def remembered(value: Any) -> Any:
    """Return a value of a config to compare a later one with."""
    if isinstance(value, (list, tuple, set, frozenset)):
        try:
            return copy.deepcopy(value)
        except Exception:  # noqa: BLE001 - a value of the user's own
            return value
    return value


def same(one: Any, other: Any) -> bool:
    """Return whether two values of a config are the same; not-a-number is the same as itself."""
    if one is other:
        return True
    try:
        return bool(type(one) is type(other) and (one == other or (one != one and other != other)))
    except Exception:  # noqa: BLE001 - a value of the user's own
        return False
