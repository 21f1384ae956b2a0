"""Which values of a run are superseded: decided by position where that is known, else by step.

A run that is resumed from a checkpoint says so by an event (`RESUME`), which names the position
that the checkpoint knows, or the step that the program has restored. What was logged after that
position and before the event is superseded, whatever its step.

Where nothing is said, a value hides nothing but its own predecessor: an earlier attempt's value of
the same metric at the same step is superseded by the later one's. No other metric is touched, and
no row without a step.

A step alone is turned into a position by the metrics that were logged most often: the position
before the first of their rows that goes beyond the step. Metrics on another axis (epochs, samples)
are cut at that position, and not at their own numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from keisei.journal.records import Position

RESUME = "keisei/resume"

Keys = tuple[str, ...]


class Steps:
    """A set of steps, kept as runs of equal distance: a training's steps are one or a few."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._strides: list[int] = []
        self._sorted = True
        self._all: set[int] = set()

    def add(self, step: int) -> None:
        """Add a step; those that come in order cost no memory."""
        if self._starts:
            start, end, stride = self._starts[-1], self._ends[-1], self._strides[-1]
            if step == end:
                return
            if step > end and (start == end or step - end == stride):
                self._ends[-1], self._strides[-1] = step, step - end
                return
            self._sorted = self._sorted and step > end
        self._starts.append(step)
        self._ends.append(step)
        self._strides.append(1)

    def seal(self) -> None:
        """Prepare for `in`: steps in any order become a set, which takes what their rows take."""
        if not self._sorted:
            runs = zip(self._starts, self._ends, self._strides, strict=True)
            self._all = {step for run in runs for step in range(run[0], run[1] + 1, run[2])}

    def __contains__(self, step: int) -> bool:
        if not self._sorted:
            return step in self._all
        at = bisect_right(self._starts, step) - 1
        return (
            at >= 0
            and step <= self._ends[at]
            and (step - self._starts[at]) % self._strides[at] == 0
        )


class Stretches:
    """Numbers of records, in stretches.

    Args:
        found: the first number of each stretch, and the one behind it; they may overlap.
    """

    def __init__(self, found: Iterable[tuple[int, int]]) -> None:
        self._bounds: list[int] = []  # where it begins and ends, in turns
        for first, behind in sorted(found):
            if self._bounds and first <= self._bounds[-1]:
                self._bounds[-1] = max(self._bounds[-1], behind)
            else:
                self._bounds += first, behind

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __contains__(self, seq: int) -> bool:
        return bisect_right(self._bounds, seq) % 2 == 1


class Cuts:
    """Stretches of a run's history that were left behind by resuming from before them."""

    def __init__(self) -> None:
        self._stretches: list[tuple[Position, Position]] = []

    def add(self, after: Position, before: Position) -> None:
        """Supersede what stands between two positions."""
        self._stretches.append((after, before))

    def __bool__(self) -> bool:
        return bool(self._stretches)

    def of(self, attempt: int) -> Stretches:
        """Return the stretches of one attempt."""
        found = []
        for after, before in self._stretches:
            if after.attempt <= attempt <= before.attempt:
                first = after.seq + 1 if attempt == after.attempt else 0
                behind = before.seq if attempt == before.attempt else 1 << 62
                if first < behind:
                    found.append((first, behind))
        return Stretches(found)


class Predecessors:
    """The steps at which later attempts have logged each metric."""

    def __init__(self) -> None:
        self._by_keys: dict[int, dict[Keys, Steps]] = {}
        self._of_key: dict[int, dict[str, list[Steps]]] = {}

    def add(self, attempt: int, keys: Keys, step: int) -> None:
        """Note that an attempt has a row of these metrics at a step."""
        shapes = self._by_keys.setdefault(attempt, {})
        if keys not in shapes:
            shapes[keys] = Steps()
        shapes[keys].add(step)

    def seal(self, attempts: Iterable[int]) -> None:
        """Sort what was noted; from now on `hidden` may be asked.

        Args:
            attempts: all attempts of the run.
        """
        for shapes in self._by_keys.values():
            for steps in shapes.values():
                steps.seal()
        for attempt in attempts:
            of_key: dict[str, list[Steps]] = {}
            for later, shapes in self._by_keys.items():
                if later > attempt:
                    for keys, steps in shapes.items():
                        for key in keys:
                            of_key.setdefault(key, []).append(steps)
            self._of_key[attempt] = of_key

    def of(self, attempt: int, keys: Keys) -> list[list[Steps]] | None:
        """Return, for each metric of a row, the steps at which it has a successor.

        Returns:
            A list for each key; ``None`` where none of them has any.
        """
        known = self._of_key.get(attempt, {})
        found = [known.get(key, []) for key in keys]
        return found if any(found) else None


def position_in(said: Mapping[str, object]) -> Position | None:
    """Return the position that a resume names; ``None`` where it names a step alone."""
    attempt, seq = said.get("attempt"), said.get("seq")
    if type(attempt) is int and type(seq) is int and attempt >= 1 and seq >= -1:
        return Position(attempt, seq)
    return None


def step_in(said: Mapping[str, object]) -> int | None:
    """Return the step that a resume names."""
    step = said.get("step")
    return step if type(step) is int else None


class StepPosition:
    """Turns a step into a position: give it the rows before the resume, in order.

    Args:
        step: the step that the program has restored.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._counts: dict[Keys, int] = {}
        self._exact: dict[Keys, int] = {}
        self._crossing: dict[Keys, Position] = {}
        self._before: Position | None = None

    def add(self, position: Position, keys: Keys, step: int | None) -> None:
        """Take a row."""
        if step is not None:
            self._counts[keys] = self._counts.get(keys, 0) + 1
            if step <= self._step:
                self._crossing.pop(keys, None)
                if step == self._step:
                    self._exact[keys] = self._exact.get(keys, 0) + 1
            elif keys not in self._crossing:
                self._crossing[keys] = self._before or Position(1, -1)
        self._before = position

    def found(self) -> Position | None:
        """Return the position; ``None`` where no row goes beyond the step."""
        if not self._crossing:
            return None
        keys = max(self._crossing, key=lambda keys: (keys in self._exact, self._counts[keys]))
        return self._crossing[keys]
