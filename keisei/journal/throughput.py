"""How fast the steps of a training come, by the time of its rows, and how long it still takes."""

from __future__ import annotations

from collections import deque

_LONGEST = 10**9  # seconds that are worth a word
_SET = 1.0  # seconds between two clocks, from which on one of them was set


class Throughput:
    """The speed of a training, from the steps of its rows.

    A step that goes back, after a resume, begins the recent speed anew; for the overall speed the
    time that was lost so counts, and the steps that are taken again do not.

    Args:
        window: how many looks the recent speed is measured over.
    """

    def __init__(self, window: int = 60) -> None:
        self._points: deque[tuple[float, int]] = deque(maxlen=window)
        self._first: tuple[float, int] | None = None

    def __bool__(self) -> bool:
        return bool(self._points)

    @property
    def step(self) -> int:
        """The last step; there has to be one."""
        return self._points[-1][1]

    @property
    def first(self) -> tuple[float, int] | None:
        """The time and the step of the first row that was seen, or a lower step to go back to."""
        return self._first

    @property
    def last(self) -> tuple[float, int] | None:
        """The time and the step of the last row that was seen."""
        return self._points[-1] if self._points else None

    def add(self, time: float, step: int) -> None:
        """Take the last row of a look.

        Args:
            time: when it was logged, in seconds.
            step: its step.
        """
        if self._points and step < self._points[-1][1]:
            self._points.clear()  # the training has gone back
        if self._first is None:
            self._first = time, step
        elif step < self._first[1]:
            self._first = self._first[0], step
        self._points.append((time, step))

    def recent(self) -> float:
        """Return the steps per second of the last looks; 0 where that is not known."""
        if not self._points:
            return 0.0
        return speed(self._points[0], self._points[-1])

    def overall(self) -> float:
        """Return the steps per second since the first row; 0 where that is not known."""
        if self._first is None or not self._points:
            return 0.0
        return speed(self._first, self._points[-1])


class SteadyTime:
    """When rows were logged, as the wall clock would say it had nobody set it meanwhile.

    Args:
        wall: what the wall clock says now, in seconds.
        now: what a clock says that nobody sets, in seconds.
    """

    def __init__(self, wall: float, now: float) -> None:
        self._began, self._ahead = now, wall - now
        self._known = self._ahead

    def time_of(self, logged: float, wall: float, now: float) -> float:
        """Return when a row was logged: just now, where the clock was set since the last call.

        Args:
            logged: when it was, by the wall clock.
            wall: what that says now.
            now: what the other clock says now.
        """
        was_set = abs(wall - now - self._known) > _SET
        self._known = wall - now
        age = 0.0 if was_set else min(max(0.0, wall - logged), now - self._began)
        return self._ahead + now - age


def speed(first: tuple[float, int], last: tuple[float, int]) -> float:
    """Return the steps per second between two rows; 0 where no time has passed."""
    return (last[1] - first[1]) / (last[0] - first[0]) if last[0] > first[0] else 0.0


def time_to_go(step: int, total: int, per_second: float) -> float | None:
    """Return how long a training still takes, in seconds; ``None`` where that cannot be told."""
    if per_second <= 0:
        return None
    seconds = (total - step) / per_second
    return seconds if 0 <= seconds < _LONGEST else None
