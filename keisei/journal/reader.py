"""Reads the journals of a run: all its attempts as one series, whatever has happened to them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from time import sleep
from typing import TYPE_CHECKING, NamedTuple

from keisei._io.files import OpenDirectory
from keisei.errors import MissingExtraError
from keisei.journal.decoding import CHUNK, RawRow, Run, Scanner, unpack_records
from keisei.journal.encoding import HEAD_SIZE, RECORDS, SHAPE, attempt_of, file_name

if TYPE_CHECKING:
    import pandas as pd

Value = float | int | bool


class Row(NamedTuple):
    """A row, as it was logged.

    Attributes:
        seq: its number among the rows and events of its attempt.
        time: when it was logged, in seconds since the epoch.
        step: its training step, if it has one.
        attempt: the attempt that logged it.
        values: its numbers by name.
        superseded: whether a later attempt began at or before its step.
    """

    seq: int
    time: float
    step: int | None
    attempt: int
    values: dict[str, Value]
    superseded: bool = False


class Event(NamedTuple):
    """An event, as it was logged.

    Attributes:
        seq: its number among the rows and events of its attempt.
        time: when it was logged, in seconds since the epoch.
        attempt: the attempt that logged it.
        name: what kind of event it is.
        data: what was said of it.
    """

    seq: int
    time: float
    attempt: int
    name: str
    data: object


class Position(NamedTuple):
    """A place in the record of a run: behind the row or event with this number.

    Attributes:
        attempt: the attempt that logged it.
        seq: its number among the rows and events of that attempt, the first being 0.
    """

    attempt: int
    seq: int


class Damage(NamedTuple):
    """What cannot be read of a run's journals.

    Attributes:
        skipped: how many stretches between good blocks are unreadable.
        skipped_bytes: the bytes in them.
        torn_bytes: the bytes after the last good blocks: torn, or of a write under way.
        missing: how many rows and events are not there: dropped by the writer, or unreadable.
        unnamed: how many rows cannot be understood, because the names of their values are lost.
    """

    skipped: int = 0
    skipped_bytes: int = 0
    torn_bytes: int = 0
    missing: int = 0
    unnamed: int = 0


def read_run(directory: str | os.PathLike[str]) -> RunJournal:
    """Give a reader of a run's journals. It reads when it is asked for rows, and never writes.

    Args:
        directory: the run's directory.

    Raises:
        OSError: there is no such directory.
    """
    reader = RunJournal(os.fspath(directory))
    reader.attempts()
    return reader


def repair(path: str | os.PathLike[str]) -> int:
    """Cut what is torn off the end of a journal whose writer has died.

    Args:
        path: the journal's file.

    Returns:
        How many bytes were cut.
    """
    where, name = os.path.split(os.path.abspath(path))
    with OpenDirectory(where) as directory:
        fd = directory.open(name, os.O_RDWR)
    try:
        scanner = Scanner(_reads(fd))
        for _ in scanner.blocks():
            pass
        if scanner.torn_bytes:
            os.ftruncate(fd, scanner.position)
            os.fsync(fd)
        return scanner.torn_bytes
    finally:
        os.close(fd)


class RunJournal:
    """The journals of a run, one per attempt, read as one.

    A later attempt goes on from some step; what earlier ones had logged from that step on is
    superseded: the rows that are not are those of a run that was never interrupted. A row without
    a step goes with the last step before it. Events are history, and never superseded.

    Args:
        directory: the run's directory.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def attempts(self) -> list[int]:
        """Give the attempts that have a journal."""
        found = [attempt_of(name) for name in os.listdir(self.directory)]
        return sorted(attempt for attempt in found if attempt is not None)

    def rows(self, include_superseded: bool = False) -> Iterator[Row]:
        """Give the rows in order, attempt by attempt.

        Args:
            include_superseded: give these rows too; they are marked.
        """
        for attempt, superseded, seq, keys, raw in self.merged():
            if include_superseded or not superseded:
                yield _row(attempt, seq, keys, raw, superseded)

    def columns(
        self, key: str, include_superseded: bool = False
    ) -> tuple[list[int | None], list[Value]]:
        """Give the steps and the values of one metric, in order.

        Args:
            key: the metric's name.
            include_superseded: give these rows' too.
        """
        steps: list[int | None] = []
        values: list[Value] = []
        places: dict[tuple[str, ...], int | None] = {}
        for _, superseded, _, keys, raw in self.merged():
            if keys not in places:
                places[keys] = keys.index(key) + 1 if key in keys else None
            place = places[keys]
            if place is not None and (include_superseded or not superseded):
                steps.append(raw[-1])  # type: ignore[arg-type]
                values.append(raw[place])  # type: ignore[arg-type]
        return steps, values

    def events(self) -> Iterator[Event]:
        """Give the events of all attempts, in order."""
        for attempt in self.attempts():
            with AttemptReader(self.directory, attempt) as reader:
                for run in reader.runs():
                    for i, event in enumerate(run.events):
                        yield Event(run.seq + i, event[0], attempt, event[1], event[2])

    def damage(self) -> Damage:
        """Read everything, and give what cannot be read."""
        total = Damage()
        for attempt in self.attempts():
            with AttemptReader(self.directory, attempt) as reader:
                for _ in reader.runs():
                    pass
                found = reader.damage()
                total = Damage(*(a + b for a, b in zip(total, found, strict=True)))
        return total

    def follow(
        self, *, poll: float = 0.2, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Row]:
        """Give the rows of a live run as they come, those that are there first. It blocks.

        Nothing is superseded here: what a later attempt does is not known yet.

        Args:
            poll: how often to look for more, in seconds.
            stop: asked before each look; once true, what is there is given, and that is the end.
        """
        readers: dict[int, AttemptReader] = {}
        try:
            while True:
                last = stop()
                for attempt in self.attempts():
                    if attempt not in readers:
                        readers[attempt] = AttemptReader(self.directory, attempt)
                    for seq, keys, raw in readers[attempt].rows():
                        yield _row(attempt, seq, keys, raw, False)
                if last:
                    return
                sleep(poll)
        finally:
            for reader in readers.values():
                reader.close()

    def frame(self, include_superseded: bool = False) -> pd.DataFrame:
        """Give the rows as a pandas frame, with the columns seq, time, step, attempt, and metrics.

        Args:
            include_superseded: give these rows too.

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

    def merged(self) -> Iterator[tuple[int, bool, int, tuple[str, ...], RawRow]]:
        """Give attempt, whether superseded, number, keys and raw row, in order."""
        attempts = self.attempts()
        cuts: dict[int, float] = {}
        cut = float("inf")
        for attempt in reversed(attempts):
            cuts[attempt] = cut
            with AttemptReader(self.directory, attempt) as reader:
                cut = min(cut, reader.first_step())
        for attempt in attempts:
            cut, superseded = cuts[attempt], False
            with AttemptReader(self.directory, attempt) as reader:
                for run in reader.runs():
                    keys = reader.keys(run)
                    for seq, raw in enumerate(run.rows, run.seq):
                        step = raw[-1]
                        if step is not None:
                            superseded = step >= cut
                        yield attempt, superseded, seq, keys, raw


class AttemptReader:
    """Reads one attempt's journal from where it was left.

    Args:
        directory: the run's directory.
        attempt: the attempt.
        start: the number of the first record that is wanted; those in blocks before it are left
            out.
    """

    def __init__(self, directory: str, attempt: int, start: int = 0) -> None:
        self.attempt = attempt
        self._start = start
        with OpenDirectory(directory) as opened:
            self._fd = opened.open(file_name(attempt), os.O_RDONLY)
        self._scanner = Scanner(_reads(self._fd))
        self._shapes: dict[int, tuple[str, ...]] = {}
        self._places: list[int | None] = [None, CHUNK]  # where to look for lost names, from the end
        self._next = self._missing = self._unnamed = self._foreign = 0

    def __enter__(self) -> AttemptReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)

    @property
    def position(self) -> int:
        """The end of the last good block that was read, in bytes."""
        return self._scanner.position

    def counts(self) -> Iterator[tuple[int, int]]:
        """Give the first number and the count of the records of each block, unread."""
        for block in self._scanner.blocks():
            if block.marker == RECORDS and block.seq >= self._next and block.records:
                self._next = block.seq + block.records
                yield block.seq, block.records

    def fileno(self) -> int:
        """Give the descriptor."""
        return self._fd

    def keys(self, run: Run) -> tuple[str, ...]:
        """Give the names of the values of a run of rows."""
        return () if run.shape is None else self._shapes[run.shape]

    def shapes(self) -> list[tuple[str, ...]]:
        """Look through the file for the names of all rows' values, and give them."""
        self._look(None)
        return list(self._shapes.values())

    def seek_back(self, size: int) -> bool:
        """Go on reading near the end of the file, with the rows of its last bytes.

        Args:
            size: how many bytes.

        Returns:
            Whether these are all that there are.
        """
        start = max(0, os.fstat(self._fd).st_size - size)
        ahead, self._scanner = Scanner(_reads(self._fd)), Scanner(_reads(self._fd))
        ahead.position = self._scanner.position = start
        self._next = 0
        for block in ahead.blocks() if start else ():
            if block.marker == RECORDS:
                self._scanner.position = ahead.position - HEAD_SIZE - len(block.payload)
                self._next = block.seq
                break
        return not start

    def first_step(self) -> float:
        """Give the first step that was logged; infinity where there is none."""
        for run in self.runs():
            for raw in run.rows:
                if raw[-1] is not None:
                    return raw[-1]
        return float("inf")

    def runs(self) -> Iterator[Run]:
        """Give the records that can be read, each once, to the present end of the file."""
        for block in self._scanner.blocks():
            if block.marker == SHAPE:
                self._learn(block.payload)
            # What was written twice, after an fsync that failed, has numbers seen before.
            if block.marker != RECORDS or block.seq < self._next or not block.records:
                continue
            self._missing += block.seq - self._next
            self._next = block.seq + block.records
            if self._next <= self._start:
                continue
            try:
                runs = unpack_records(block)
            except ValueError:
                self._foreign += 1
                self._missing += block.records
                continue
            for run in runs:
                if run.shape is None or self._knows(run.shape):
                    yield run
                else:
                    self._unnamed += len(run.rows)

    def rows(self) -> Iterator[tuple[int, tuple[str, ...], RawRow]]:
        """Give number, keys and raw row of the rows that can be read, each once."""
        for run in self.runs():
            keys = self.keys(run)
            for seq, raw in enumerate(run.rows, run.seq):
                yield seq, keys, raw

    def damage(self) -> Damage:
        """Give what could not be read so far."""
        scanner = self._scanner
        return Damage(
            scanner.skipped + self._foreign,
            scanner.skipped_bytes,
            scanner.torn_bytes,
            self._missing,
            self._unnamed,
        )

    def _learn(self, payload: bytes) -> None:
        shape = json.loads(payload)
        self._shapes[shape["id"]] = tuple(shape["keys"])

    def _knows(self, shape: int) -> bool:
        # The first of its two definitions is damaged, or stands before the place that was sought.
        while shape not in self._shapes and self._places:
            self._look(self._places.pop())
        return shape in self._shapes

    def _look(self, end: int | None) -> None:
        for block in Scanner(_reads(self._fd, end)).blocks():
            if block.marker == SHAPE:
                self._learn(block.payload)


def _row(attempt: int, seq: int, keys: tuple[str, ...], raw: RawRow, superseded: bool) -> Row:
    values: dict[str, Value] = dict(zip(keys, raw[1:-1], strict=True))  # type: ignore[arg-type]
    return Row(seq, raw[0], raw[-1], attempt, values, superseded)  # type: ignore[arg-type]


def _reads(fd: int, end: int | None = None) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size if end is None else max(0, min(size, end - offset)))

    return read
