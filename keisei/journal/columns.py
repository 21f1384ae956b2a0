"""Columns of a run's metrics, as arrays where all numbers are of one kind."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    _Array = array[Any]
else:
    _Array = array  # which takes no arguments before Python 3.12


class Column(_Array):
    """An array of numbers that equals a list of the same numbers, and shows as one."""

    def __repr__(self) -> str:
        return repr(self.tolist())

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, array):
            return bool(super().__eq__(other))
        if not isinstance(other, (list, tuple)) or len(other) != len(self):
            return False
        return all(one == two for one, two in zip(self, other, strict=True))


class ColumnBuilder:
    """Gathers numbers: an array while they are all floats, or all integers of 64 bits; else a list.

    Attributes:
        column: what was gathered.
    """

    def __init__(self) -> None:
        self.column: Sequence[Any] = []

    def extend(self, values: list[Any]) -> None:
        """Add numbers at the end."""
        if not values:
            return
        kinds = set(map(type, values))
        code = "d" if kinds == {float} else "q" if kinds == {int} else ""
        if code and not len(self.column):
            self.column = Column(code)
        if isinstance(self.column, Column):
            if self.column.typecode == code:
                size = len(self.column)
                try:
                    self.column.extend(values)
                    return
                except OverflowError:
                    del self.column[size:]
            self.column = list(self.column)
        self.column += values  # type: ignore[operator]
