"""What the resumes of a run have left behind in its journals, or in those of one of its parts.

A part logs its own resumes where it restores something itself. In an attempt in which it has not,
the owner's count for it: by their step, for positions in the owner's journal say nothing of where
the part was; and where the owner begins from scratch, so do all parts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

from keisei.journal.attempt import AttemptReader
from keisei.journal.format import attempt_of, file_name
from keisei.journal.records import Position
from keisei.journal.superseding import (
    RESUME,
    Cuts,
    Predecessors,
    StepPosition,
    position_in,
    step_in,
)

_REREAD = 1 << 22
_BEFORE_ALL = Position(1, -1)

_Said = dict[str, object]


class OwnersResume(NamedTuple):
    """A resume of the run, as the owner's journal has it.

    Attributes:
        attempt: the attempt that goes on.
        time: when it was logged; ``None`` where nothing stood before it in that attempt.
        said: what parts can make of it: a step, or the position before all.
    """

    attempt: int
    time: float | None
    said: _Said


def owners_resumes(directory: str, attempts: list[int]) -> list[OwnersResume]:
    """Read the resumes in the owner's journals.

    Args:
        directory: the run's directory.
        attempts: those that have such a journal.

    Raises:
        OSError: a journal cannot be read.
    """
    found = []
    for attempt in attempts:
        with AttemptReader(directory, attempt) as reader:
            for seq, time, said in reader.events_named(RESUME):
                if not isinstance(said, dict):
                    continue
                known: _Said
                if position_in(said) == _BEFORE_ALL:
                    known = {**_BEFORE_ALL._asdict()}
                elif (step := step_in(said)) is not None:
                    known = {"step": step}
                else:
                    continue
                found.append(OwnersResume(attempt, time if seq else None, known))
    return found


class History:
    """The attempts of a run, or of one of its parts, and what they have left behind.

    Args:
        directory: the run's directory.
        attempts: those that have a journal, in order.
        part: the part whose journals these are; ``None`` for the owner's own.
        owners: the owner's resumes, where they are known; else they are read for a part.
    """

    def __init__(
        self,
        directory: str,
        attempts: list[int],
        part: str | None = None,
        owners: list[OwnersResume] | None = None,
    ) -> None:
        self._directory, self._attempts, self._part = directory, attempts, part
        self._owners = owners

    def cuts(self) -> Cuts:
        """Return the stretches that the resumes have left behind."""
        cuts = Cuts()
        sizes = [os.path.getsize(self._path(attempt)) for attempt in self._attempts]
        left = _REREAD + 30 * sum(sizes)  # bytes: no run resumes so often
        for at, said in self._resumes():
            cuts.known = at
            after, step = position_in(said), step_in(said)
            if after is None and step is not None and left > 0:
                # Where no row goes beyond the step, nothing is left behind.
                after = self._position_of(step, at, cuts) or at
                left -= sum(
                    size
                    for attempt, size in zip(self._attempts, sizes, strict=True)
                    if attempt <= at.attempt
                )
            if after is not None and after <= at:
                cuts.add(after, at)
        return cuts

    def predecessors(self, cuts: Cuts) -> Predecessors | None:
        """Note at which steps later attempts have logged what; ``None`` where there are none."""
        noted = Predecessors()
        for attempt in self._attempts[1:]:
            stretches = cuts.of(attempt)
            with self._open(attempt) as reader:
                for batch in reader.batches(events=False):
                    section = cuts.section(Position(attempt, batch.seq))
                    if cuts.begin(section).attempt == attempt:
                        break  # from here on it was said what is superseded
                    keys = reader.keys(batch)
                    for seq, raw in enumerate(batch.rows, batch.seq):
                        if raw[-1] is not None and seq not in stretches:
                            noted.add(section, attempt, keys, raw[-1])  # type: ignore[arg-type]
        noted.seal()
        return noted or None

    def _path(self, attempt: int) -> str:
        return os.path.join(self._directory, file_name(attempt, self._part))

    def _open(self, attempt: int) -> AttemptReader:
        return AttemptReader(self._directory, attempt, part=self._part)

    def _resumes(self) -> list[tuple[Position, _Said]]:
        """Return the resumes, in order, and where in these journals they stand."""
        found = list(self._own_resumes())
        if self._part is not None:
            own = {at.attempt for at, _ in found}
            if self._owners is None:
                names = os.listdir(self._directory)
                known = sorted(n for name in names if (n := attempt_of(name)) is not None)
                self._owners = owners_resumes(self._directory, known)
            for resume in self._owners:
                if resume.attempt not in own:
                    found.append((self._position_at(resume), resume.said))
            found.sort(key=itemgetter(0))
        return found

    def _own_resumes(self) -> Iterator[tuple[Position, _Said]]:
        for attempt in self._attempts:
            with self._open(attempt) as reader:
                for seq, _, said in reader.events_named(RESUME):
                    if isinstance(said, dict):
                        yield Position(attempt, seq), said

    def _position_at(self, resume: OwnersResume) -> Position:
        """Return where in the part's journals a resume of the owner's stands, by its time."""
        behind = -1
        if resume.time is not None and resume.attempt in self._attempts:
            with self._open(resume.attempt) as reader:
                for batch in reader.batches():
                    times = [row[0] for row in batch.rows or batch.events]
                    for seq, time in enumerate(times, batch.seq):
                        if time >= resume.time:  # type: ignore[operator]
                            return Position(resume.attempt, seq if behind >= 0 else -1)
                        behind = seq
        return Position(resume.attempt, behind + 1 if behind >= 0 else -1)

    def _position_of(self, step: int, before: Position, cuts: Cuts) -> Position | None:
        """Return the position that a restored step stands for; see `superseding`."""
        found = StepPosition(step)
        for attempt in self._attempts:
            if attempt > before.attempt:
                break
            stretches = cuts.of(attempt)
            with self._open(attempt) as reader:
                for seq, keys, raw in reader.rows():
                    if attempt == before.attempt and seq >= before.seq:
                        break
                    if seq not in stretches:
                        found.add(Position(attempt, seq), keys, raw[-1])  # type: ignore[arg-type]
        return found.found()
