"""The time of rows as a clock has it that nobody sets, though rows have the wall clock's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

_SET = 1.0  # seconds between two clocks, from which on one of them was set
_SILENCE = 300.0  # seconds; a process that lives says more often how long it has


class Mark(NamedTuple):
    """How long an attempt has lived by one of its events.

    Attributes:
        seq: the event's number among the rows and events of its attempt.
        wall: when it was, by the wall clock, in seconds since the epoch.
        lived: how long the attempt has lived by then, by a clock that nobody sets, in seconds.
    """

    seq: int
    wall: float
    lived: float


class LivedTime:
    """How long an attempt has lived at each of its rows.

    Between two marks that tell the clock was set, a row is before or after that by where its time
    fits: it is off by no more than the marks are apart.

    Args:
        marks: what the attempt's events say, in order.
    """

    def __init__(self, marks: Iterable[Mark]) -> None:
        self._marks = deque(marks)
        self._mark: Mark | None = None
        self._last = 0.0

    def at(self, seq: int, wall: float) -> float:
        """Return how long the attempt has lived at a row; its wall clock where no mark is known.

        Args:
            seq: the row's number; rows are asked for in order.
            wall: its time.
        """
        while self._marks and self._marks[0].seq <= seq:
            self._mark = self._marks.popleft()
        if self._mark is None:
            return wall
        wall_0, lived_0 = self._mark[1:]
        lived = lived_0 + wall - wall_0
        if not self._marks:
            lived = min(lived, lived_0 + _SILENCE)
        else:
            _, wall_1, lived_1 = self._marks[0]
            was_set = abs((wall_1 - wall_0) - (lived_1 - lived_0)) > _SET
            if was_set and not self._last <= lived <= lived_1:
                lived = min(lived_1 + wall - wall_1, lived_1)
        self._last = max(self._last, lived)
        return self._last
