"""Which values of a run are superseded: decided by position where that is known, else by step.

A run that is resumed from a checkpoint says so by an event (`RESUME`), which names the position
that the checkpoint knows, or the step that the program has restored. What was logged after that
position and before the event is superseded, whatever its step.

A resume that goes back to before an earlier one, or to a checkpoint that an earlier one had left
behind, takes that one's place: what counts is the way back from the run's last record.

Rows `system/...` are never superseded: they are measurements of what was used, and it was.

Where nothing is said, a value hides nothing but its own predecessor: an earlier attempt's value of
the same metric at the same step is superseded by the later one's. No other metric is touched, and
no row without a step. A resume that says what it supersedes has said all of it: across one,
nothing is hidden so.

A step alone is turned into a position by the metrics that were logged most often: the position
before the first of their rows that goes beyond the step. Metrics on another axis (epochs, samples)
are cut at that position, and not at their own numbers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from operator import itemgetter

from keisei.journal.records import Position

RESUME = "keisei/resume"

Keys = tuple[str, ...]


class Steps:
    """A set of steps, kept as runs of equal distance: a training's steps are one or a few.

    Attributes:
        low: the lowest, once it is sealed; more than `high` where there is none.
        high: the highest.
    """

    def __init__(self) -> None:
        self.low, self.high = 0, -1
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
        if self._starts:
            self.low, self.high = min(self._starts), max(self._ends)
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

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the first number of each stretch, and the one behind it, in order."""
        return iter(zip(self._bounds[::2], self._bounds[1::2], strict=True))

    def __contains__(self, seq: int) -> bool:
        return bisect_right(self._bounds, seq) % 2 == 1

    def others(self, first: int, behind: int) -> list[tuple[int, int]]:
        """Return the stretches between two numbers that are in none of these."""
        begin, end = bisect_right(self._bounds, first), bisect_left(self._bounds, behind)
        bounds = self._bounds[begin:end]
        bounds = bounds if begin % 2 else [first, *bounds]
        bounds = bounds if end % 2 else [*bounds, behind]
        return [(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True) if a < b]


NOTHING = Stretches(())


class Cuts:
    """What a run's resumes have left behind: stretches of its history, none within another.

    What counts is the way back from the run's last record: from there to the last resume, on from
    where that has gone back to, and so forth. So a resume that a later one leaves behind has left
    nothing behind itself.

    Attributes:
        known: the last resume that was taken into account.
    """

    def __init__(self) -> None:
        self.known = Position(0, -1)
        self._resumes: list[Position] = []
        self._targets: list[Position] = []
        self._way: list[tuple[Position, Position]] | None = []

    def add(self, after: Position, before: Position) -> None:
        """Take the next resume of the run, in order.

        Args:
            after: where the run has gone back to; from there on all is superseded.
            before: the position of the resume itself.
        """
        self._resumes.append(before)
        self._targets.append(after)
        self._way = None

    def _stretches(self) -> list[tuple[Position, Position]]:
        """Return the resumes on the way back, in order: where each has gone back to, and where."""
        if self._way is None:
            self._way = self._way_before(len(self._resumes))
        return self._way

    def _way_before(self, count: int) -> list[tuple[Position, Position]]:
        way, at = [], count - 1
        while at >= 0:
            way.append((self._targets[at], self._resumes[at]))
            at = min(at, bisect_right(self._resumes, self._targets[at])) - 1
        return way[::-1]

    def __bool__(self) -> bool:
        return bool(self._resumes)

    def __contains__(self, position: Position) -> bool:
        """Return whether the record at a position is superseded."""
        way = self._stretches()
        at = bisect_right(way, position, key=itemgetter(1))
        return at < len(way) and way[at][0] < position

    def gone_back_to(self, position: Position) -> Position:
        """Return where the run has gone back to when it left a record behind.

        Args:
            position: the record's position, which is superseded.
        """
        way = self._stretches()
        return way[bisect_right(way, position, key=itemgetter(1))][0]

    def of(self, attempt: int) -> Stretches:
        """Return the stretches of one attempt."""
        found = []
        way = self._stretches()
        for at in range(bisect_left(way, Position(attempt, -1), key=itemgetter(1)), len(way)):
            after, before = way[at]
            if after.attempt > attempt:
                break
            first = after.seq + 1 if attempt == after.attempt else 0
            behind = before.seq if attempt == before.attempt else 1 << 62
            if first < behind:
                found.append((first, behind))
        return Stretches(found)

    def fork(self, told: Position) -> Position | None:
        """Return up to where all still is as it was before the latest resumes.

        Args:
            told: the last resume that is not one of those.

        Returns:
            The position behind which other rows hold than did; ``None`` where there is none.
        """
        before = self._way_before(bisect_right(self._resumes, told))
        for both in zip_longest(before, self._stretches()):
            if both[0] != both[1]:
                return min(one[0] for one in both if one is not None)
        return None

    def section(self, position: Position) -> int:
        """Return how many of the resumes on the way back stand before a position."""
        return bisect_left(self._stretches(), position, key=itemgetter(1))

    def begin(self, section: int) -> Position:
        """Return the resume with which a section begins, or the beginning of the run."""
        return self._stretches()[section - 1][1] if section else Position(1, -1)


class Predecessors:
    """The steps at which later attempts have logged each metric, section by section.

    A resume that says where it goes back to has said all of what it supersedes: so a value is
    hidden by its successor only where no such resume stands between the two.
    """

    def __init__(self) -> None:
        self._noted: dict[tuple[int, int], dict[Keys, Steps]] = {}
        self._later: dict[tuple[int, str], tuple[list[int], list[Steps]]] = {}

    def __bool__(self) -> bool:
        return bool(self._noted)

    def add(self, section: int, attempt: int, keys: Keys, step: int) -> None:
        """Note that an attempt has a row of these metrics at a step; attempts come in order."""
        shapes = self._noted.setdefault((section, attempt), {})
        if keys not in shapes:
            shapes[keys] = Steps()
        shapes[keys].add(step)

    def seal(self) -> None:
        """Sort what was noted; from now on `of` may be asked."""
        for (section, attempt), shapes in self._noted.items():
            for keys, steps in shapes.items():
                steps.seal()
                for key in keys:
                    attempts, found = self._later.setdefault((section, key), ([], []))
                    attempts.append(attempt)
                    found.append(steps)

    def of(
        self, section: int, attempt: int, keys: Keys, steps: list[int]
    ) -> list[list[Steps]] | None:
        """Return, for each metric of some rows, the steps at which it has a successor.

        Args:
            section: which section the rows are of.
            attempt: their attempt.
            keys: their metrics.
            steps: their steps.

        Returns:
            A list for each key; ``None`` where none of them has any.
        """
        if not steps:
            return None
        low, high = min(steps), max(steps)
        found = []
        for key in keys:
            attempts, later = self._later.get((section, key), ((), ()))
            each = later[bisect_right(attempts, attempt) :]
            found.append([one for one in each if one.low <= high and low <= one.high])
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
