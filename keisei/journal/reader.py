"""Reads the journals of a run: all its attempts as one series, whatever has happened to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from time import sleep
from typing import TYPE_CHECKING

from keisei.errors import MissingExtraError
from keisei.journal.attempt import AttemptReader, repair
from keisei.journal.columns import ColumnBuilder
from keisei.journal.decoding import Batch, RawRow
from keisei.journal.format import attempt_of, part_of
from keisei.journal.history import History, OwnersResume, owners_resumes
from keisei.journal.media import Media, is_there, media_in, with_superseded
from keisei.journal.merging import Reduction, Series, in_order, part_asked, reduced
from keisei.journal.records import Damage, Event, Position, Row, Value, is_system
from keisei.journal.superseding import NOTHING, Cuts, Steps, Stretches

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AttemptReader",
    "Damage",
    "Event",
    "Media",
    "Position",
    "Row",
    "RunJournal",
    "Value",
    "read_run",
    "repair",
]


_Part = tuple[int, bool, int, tuple[str, ...], RawRow]
_Read = tuple[int, Batch, tuple[str, ...], Stretches, list[list[Steps]] | None]


def read_run(directory: str | os.PathLike[str]) -> RunJournal:
    """Return a reader of a run's journals. It reads when it is asked for rows, and never writes.

    Args:
        directory: the run's directory.

    Raises:
        OSError: there is no such directory.
    """
    reader = RunJournal(os.fspath(directory))
    reader.attempts()
    return reader


class RunJournal:
    """The journals of a run, one per attempt, read as one.

    What a resumed run has logged anew is superseded (see `keisei.journal.superseding`): what is
    not is what a run that was never interrupted has. Events are history, and never superseded.

    Args:
        directory: the run's directory.
        part: the part of the run whose journals these are; ``None`` for the owner's own.
        attempts: those that have a journal, where they are known and do not change.
    """

    def __init__(
        self, directory: str, part: str | None = None, attempts: list[int] | None = None
    ) -> None:
        self.directory, self.part = directory, part
        self._attempts = attempts
        self._owners: list[OwnersResume] | None = None

    def parts(self) -> list[str]:
        """Return the parts that have a journal, besides the owner's own: rank2 before rank10."""
        found = {known[1] for name in os.listdir(self.directory) if (known := part_of(name))}
        return sorted((part for part in found if part is not None), key=in_order)

    def of(self, part: str | None) -> RunJournal:
        """Return a reader of one part's journals; ``None`` is the owner's own."""
        return RunJournal(self.directory, part)

    def attempts(self) -> list[int]:
        """Return the attempts that have a journal."""
        if self._attempts is not None:
            return self._attempts
        found = [attempt_of(name, self.part) for name in os.listdir(self.directory)]
        return sorted(attempt for attempt in found if attempt is not None)

    def open(self, attempt: int) -> AttemptReader:
        """Open the journal of one attempt.

        Raises:
            OSError: it cannot be opened.
        """
        return AttemptReader(self.directory, attempt, part=self.part)

    def last_step(self) -> int | None:
        """Return the last step that was logged, read near the end; ``None`` where there is none."""
        for attempt in reversed(self.attempts()):
            with self.open(attempt) as reader:
                step = reader.last_step()
            if step is not None:
                return step
        return None

    def rows(
        self,
        include_superseded: bool = False,
        *,
        rank: int | None = None,
        part: str | None = None,
        system: bool = False,
    ) -> Iterator[Row]:
        """Yield the rows in order, attempt by attempt: the owner's own, or another part's.

        Args:
            include_superseded: yield these rows too; they are marked.
            rank: the rank whose rows are meant; 0 is the owner, or
            part: the part.
            system: yield the rows `system/...` of what the run uses of its machine, too.
        """
        if (asked := part_asked(rank, part)) is not None:
            yield from self.of(asked).rows(include_superseded, system=system)
            return
        for attempt, superseded, seq, keys, raw in self.merged(system=system):
            if include_superseded or not superseded:
                yield _row(attempt, seq, keys, raw, superseded)

    def columns(
        self,
        key: str,
        include_superseded: bool = False,
        *,
        rank: int | None = None,
        part: str | None = None,
        reduce: Reduction | None = None,
    ) -> Series:
        """Return the steps and the values of one metric, in order.

        Args:
            key: the metric's name.
            include_superseded: return these rows' too.
            rank: the rank whose rows are meant; 0 is the owner, or
            part: the part. With `reduce`, a pattern of parts, such as ``rollout-*``.
            reduce: merge what all parts that have the metric have logged, the owner too, to one
                value for each step; steps come sorted, and rows without a step are left out. Of
                several values that a part has at one step, the last one counts.

        Returns:
            Each as an array, where all its numbers are floats or all are integers (and each row
            has a step); else as a list. An array equals a list of the same numbers.
        """
        if reduce is not None:
            return reduced(self._series(key, include_superseded, part_asked(rank, part)), reduce)
        if (asked := part_asked(rank, part)) is not None:
            return self.of(asked).columns(key, include_superseded)
        steps, values = ColumnBuilder(), ColumnBuilder()
        columns: dict[tuple[str, ...], int | None] = {}

        def column_of(keys: tuple[str, ...]) -> int | None:
            if keys not in columns:
                columns[keys] = keys.index(key) + 1 if key in keys else None
            return columns[keys]

        for attempt, batch, keys, stretches, later in self._batches():
            column = column_of(keys)
            if column is None:
                continue
            rows = batch.rows
            if not include_superseded and (stretches or later is not None):
                parts = _divided(attempt, batch, keys, stretches, later)
                rows = [
                    (raw[0], raw[at], raw[-1])
                    for _, superseded, _, names, raw in parts
                    if not superseded and (at := column_of(names)) is not None
                ]
                column = 1
            steps.extend([raw[-1] for raw in rows])
            values.extend([raw[column] for raw in rows])
        return steps.column, values.column

    def _series(self, key: str, include_superseded: bool, pattern: str | None) -> Iterator[Series]:
        """Yield steps and values of one metric, of each part of which the name fits."""
        attempts: dict[str | None, list[int]] = {}
        for name in os.listdir(self.directory):
            if known := part_of(name):
                attempts.setdefault(known[1], []).append(known[0])
        owners = owners_resumes(self.directory, sorted(attempts.get(None, ())))
        for part, found in attempts.items():
            if pattern is None or (part is not None and fnmatchcase(part, pattern)):
                journal = RunJournal(self.directory, part, sorted(found))
                journal._owners = owners
                yield journal.columns(key, include_superseded)

    def events(self) -> Iterator[Event]:
        """Yield the events of all attempts, in order."""
        for attempt in self.attempts():
            with self.open(attempt) as reader:
                for batch in reader.batches():
                    for i, event in enumerate(batch.events):
                        yield Event(batch.seq + i, event[0], attempt, event[1], event[2])

    def media(
        self,
        name: str | None = None,
        include_superseded: bool = False,
        *,
        rank: int | None = None,
        part: str | None = None,
    ) -> list[Media]:
        """Return the images, files and the like that are kept, in the order of their events.

        One whose file is not there any more is left out, and so is one behind a symlink.

        Args:
            name: the name of those that are wanted; ``None`` for all.
            include_superseded: return what a resume has left behind, too; it is marked.
            rank: the rank whose media are meant; 0 is the owner, or
            part: the part.

        Raises:
            OSError: a journal cannot be read.
        """
        if (asked := part_asked(rank, part)) is not None:
            return self.of(asked).media(name, include_superseded)
        found = [media_in(event, self.directory) for event in self.events()]
        named = [one for one in found if one is not None and name in (None, one.name)]
        if not named:
            return []
        marked = with_superseded(named, self.cuts())
        return [
            one for one in marked if is_there(one) and (include_superseded or not one.superseded)
        ]

    def damage(self) -> Damage:
        """Read everything, and return what cannot be read."""
        total = Damage()
        for attempt in self.attempts():
            with self.open(attempt) as reader:
                for _ in reader.batches():
                    pass
                found = reader.damage()
                total = Damage(*(a + b for a, b in zip(total, found, strict=True)))
        return total

    def follow(
        self, *, poll: float = 0.2, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Row]:
        """Yield the rows of a live run as they come, those that are there first. It blocks.

        The rows `system/...` are left out. Nothing is superseded here: what a later attempt does is
        not known yet.

        Args:
            poll: how often to look for more, in seconds.
            stop: asked before each look; once true, what is there is yielded, and that is the end.
        """
        readers: dict[int, AttemptReader] = {}
        try:
            while True:
                last = stop()
                for attempt in self.attempts():
                    if attempt not in readers:
                        readers[attempt] = self.open(attempt)
                    for seq, keys, raw in readers[attempt].rows():
                        if not is_system(keys):
                            yield _row(attempt, seq, keys, raw, False)
                if last:
                    return
                sleep(poll)
        finally:
            for reader in readers.values():
                reader.close()

    def frame(self, include_superseded: bool = False) -> pd.DataFrame:
        """Return the rows as a pandas frame: the columns seq, time, step, attempt, and metrics.

        Args:
            include_superseded: return these rows too.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as exc:
            raise MissingExtraError(
                "frame() needs pandas: install it with `pip install 'keisei[frames]'`"
            ) from exc
        rows = list(self.rows(include_superseded))
        fixed = [(row.seq, row.time, row.step, row.attempt) for row in rows]
        left = pd.DataFrame(fixed, columns=["seq", "time", "step", "attempt"])
        left["step"] = left["step"].astype("Int64")
        right = pd.DataFrame.from_records([row.values for row in rows], index=left.index)
        return pd.concat([left, right], axis=1)

    def merged(self, *, system: bool = False) -> Iterator[_Part]:
        """Yield attempt, whether superseded, number, keys and raw row, in order.

        A row of which only some values are superseded comes in two parts, one after the other.

        Args:
            system: yield the rows `system/...`, too.
        """
        for attempt, batch, keys, stretches, later in self._batches():
            if system or not is_system(keys):
                yield from _divided(attempt, batch, keys, stretches, later)

    def cuts(self, last: int | None = None) -> Cuts:
        """Read what the run's resumes have left behind.

        Args:
            last: the last attempt that counts; without it, all do.
        """
        attempts = [attempt for attempt in self.attempts() if last is None or attempt <= last]
        return History(self.directory, attempts, self.part, self._owners).cuts()

    def _batches(self) -> Iterator[_Read]:
        """Yield the rows, with what a later attempt has left behind or logged anew."""
        attempts = self.attempts()
        history = History(self.directory, attempts, self.part, self._owners)
        cuts = history.cuts()
        predecessors = history.predecessors(cuts)
        for attempt in attempts:
            left_behind = cuts.of(attempt)
            with self.open(attempt) as reader:
                for batch in reader.batches(events=False):
                    if not batch.rows:
                        continue
                    keys, later = reader.keys(batch), None
                    if is_system(keys):
                        yield attempt, batch, keys, NOTHING, None
                        continue
                    if predecessors is not None:
                        section = cuts.section(Position(attempt, batch.seq))
                        steps = [raw[-1] for raw in batch.rows if raw[-1] is not None]
                        later = predecessors.of(section, attempt, keys, steps)  # type: ignore[arg-type]
                    yield attempt, batch, keys, left_behind, later


def _divided(
    attempt: int,
    batch: Batch,
    keys: tuple[str, ...],
    stretches: Stretches,
    later: list[list[Steps]] | None,
) -> Iterator[_Part]:
    """Yield attempt, whether superseded, number, keys and raw row of what a batch has."""
    for seq, raw in enumerate(batch.rows, batch.seq):
        if stretches and seq in stretches:
            yield attempt, True, seq, keys, raw
        elif later is None or raw[-1] is None:
            yield attempt, False, seq, keys, raw
        else:
            yield from _parts(attempt, seq, keys, raw, later)


def _parts(
    attempt: int, seq: int, keys: tuple[str, ...], raw: RawRow, later: list[list[Steps]]
) -> Iterator[_Part]:
    """Yield what of a row still holds, and what of it a later attempt has logged anew."""
    step: int = raw[-1]  # type: ignore[assignment]
    hidden = [any(step in steps for steps in each) for each in later]
    if not any(hidden):
        yield attempt, False, seq, keys, raw
    elif all(hidden):
        yield attempt, True, seq, keys, raw
    else:
        for superseded in (False, True):
            chosen = [i for i, one in enumerate(hidden) if one is superseded]
            part = (raw[0], *(raw[i + 1] for i in chosen), step)
            yield attempt, superseded, seq, tuple(keys[i] for i in chosen), part


def _row(attempt: int, seq: int, keys: tuple[str, ...], raw: RawRow, superseded: bool) -> Row:
    values: dict[str, Value] = dict(zip(keys, raw[1:-1], strict=True))  # type: ignore[arg-type]
    return Row(seq, raw[0], raw[-1], attempt, values, superseded)  # type: ignore[arg-type]
