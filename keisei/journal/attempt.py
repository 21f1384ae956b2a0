"""Reads the journal of one attempt, from where it was left, while it may still grow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from keisei._io.files import OpenDirectory
from keisei.journal.blocks import ColumnBatch, as_columns, joined, unpack_columns
from keisei.journal.decoding import CHUNK, Batch, Block, RawRow, Scanner, Shape, unpack_records
from keisei.journal.format import ANY_SHAPE, HEAD_SIZE, RECORDS, SHAPES, file_name, unpack_shape
from keisei.journal.numbering import Numbers
from keisei.journal.records import Damage

_MOST_NAMES = 1 << 18
_NEAR = 2 * CHUNK  # bytes, among which the writer repeats the names of what it writes


class AttemptReader:
    """Reads one attempt's journal from where it was left.

    Args:
        directory: the run's directory.
        attempt: the attempt.
        start: the number of the first record that is wanted; those in blocks before it are left
            out.
        part: the part of the run whose journal it is; ``None`` for the owner's own.
    """

    def __init__(
        self, directory: str, attempt: int, start: int = 0, part: str | None = None
    ) -> None:
        self.attempt = attempt
        self._start = start
        with OpenDirectory(directory) as opened:
            self._fd = opened.open(file_name(attempt, part), os.O_RDONLY)
        self._scanner = Scanner(_reads(self._fd))
        self._shapes: dict[Shape, Block] = {}  # as they are in the file, where they take less
        self._names: dict[Shape, tuple[str, ...]] = {}  # of some of them
        self._name_count = 0
        # Where to look for lost names, the last first.
        self._unsearched: list[tuple[int, int | None]] = [(0, None), (0, CHUNK)]
        self._numbers = Numbers()
        self._unnamed = self._foreign = 0

    def __enter__(self) -> AttemptReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    @property
    def position(self) -> int:
        """The end of the last good block that was read, in bytes."""
        return self._scanner.position

    def counts(self) -> Iterator[tuple[int, int]]:
        """Yield the first number and the count of the records of each block, unread."""
        for block in self._scanner.blocks():
            if block.marker == RECORDS and self._numbers.add(block.seq, block.records):
                yield block.seq, block.records

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def keys(self, batch: Batch | ColumnBatch) -> tuple[str, ...]:
        """Return the names of the values of a batch of rows."""
        return () if batch.shape is None else self._keys(batch.shape)

    def shapes(self) -> list[tuple[str, ...]]:
        """Look through the file for the names of all rows' values, and return them."""
        self._look(0, None)
        return [self._keys(shape) for shape in self._shapes]

    def seek_back(self, size: int) -> bool:
        """Go on reading near the end of the file, with the rows of its last bytes.

        Args:
            size: how many bytes.

        Returns:
            Whether these are all that there are.
        """
        start = max(0, os.fstat(self._fd).st_size - size)
        self._numbers = Numbers()
        self._scanner = Scanner(_reads(self._fd), start)
        if start:
            ahead = Scanner(_reads(self._fd), start)
            for block in ahead.blocks():
                if block.marker == RECORDS:
                    offset = ahead.position - HEAD_SIZE - len(block.payload)
                    self._scanner = Scanner(_reads(self._fd), offset)
                    self._numbers = Numbers(block.seq)
                    break
            self._unsearched.insert(1, (max(0, start - _NEAR), start + _NEAR))
        return not start

    def last_step(self) -> int | None:
        """Return the highest step of the last rows, read near the end; ``None`` where none has one.

        Afterwards nothing else can be read with this reader.
        """
        for size in (1 << 16, CHUNK):
            whole = self.seek_back(size)
            steps: list[int] = []
            for block in self._scanner.blocks():
                with suppress(ValueError):
                    for batch in unpack_records(block, events=False):
                        steps += [raw[-1] for raw in batch.rows if type(raw[-1]) is int]
            if steps or whole:
                return max(steps, default=None)
        return None

    def has_steps(self) -> bool:
        """Return whether any row has a step."""
        return any(raw[-1] is not None for _, _, raw in self.rows())

    def batches(self, *, events: bool = True) -> Iterator[Batch]:
        """Yield the records that can be read, each once, to the present end of the file.

        Args:
            events: whether events are wanted; decoding a large one takes long.
        """
        for block in self._scanner.blocks():
            if block.marker in SHAPES:
                self._learn(block)
            if block.marker != RECORDS:
                continue
            if block.seq + block.records <= self._start:
                self._numbers.add(block.seq, block.records)
                continue
            try:
                batches = unpack_records(block, events=events)
            except ValueError:
                self._foreign += 1
                continue
            # What was written twice, after an fsync that failed, has numbers seen before.
            if not self._numbers.add(block.seq, block.records):
                continue
            for batch in batches:
                if batch.shape is None or self._knows(batch.shape):
                    yield batch
                else:
                    self._unnamed += len(batch.rows)

    def column_batches(self) -> Iterator[ColumnBatch | Batch]:
        """Yield the same as `batches`, the rows as columns and events as they are."""
        for block in joined(self._records()):
            try:
                columns = unpack_columns(block)
                batches = [] if columns is not None else unpack_records(block)
            except ValueError:
                self._foreign += 1
                continue
            if columns is not None and self._knows(columns.shape):
                yield columns
            for batch in batches:
                if batch.shape is None:
                    yield batch
                elif self._knows(batch.shape):
                    yield as_columns(batch.shape, batch.seq, batch.rows)

    def _records(self) -> Iterator[Block]:
        for block in self._scanner.blocks():
            if block.marker in SHAPES:
                self._learn(block)
            elif block.marker == RECORDS and self._numbers.add(block.seq, block.records):
                yield block

    def events_named(self, name: str) -> Iterator[tuple[int, float, object]]:
        """Yield number, time and data of the events of one name; only their blocks are decoded."""
        for seq, when, _, data in self.events_of((name,)):
            yield seq, when, data

    def events_of(self, names: Sequence[str]) -> Iterator[tuple[int, float, str, object]]:
        """Yield number, time, name and data of the events of some names, each once.

        Only the blocks that hold one are decoded, so it takes little more than reading the file.

        Args:
            names: the names.
        """
        marks = [json.dumps(name).encode() for name in names]
        for block in self._scanner.blocks():
            if block.marker != RECORDS or not any(mark in block.payload for mark in marks):
                continue
            try:
                batches = unpack_records(block)
            except ValueError:
                continue
            if not self._numbers.add(block.seq, block.records):
                continue  # it was written twice
            for batch in batches:
                for seq, event in enumerate(batch.events, batch.seq):
                    if event[1] in names:
                        yield seq, event[0], str(event[1]), event[2]

    def last_time(self) -> float | None:
        """Return when the last record was logged, read near the end; ``None`` where there is none.

        Afterwards nothing else can be read with this reader.
        """
        for size in (1 << 16, CHUNK):
            whole = self.seek_back(size)
            times: list[float] = []
            for block in self._scanner.blocks():
                if block.marker == RECORDS:
                    with suppress(ValueError):
                        for batch in unpack_records(block):
                            times += [float(one[0]) for one in (*batch.rows, *batch.events)]  # type: ignore[arg-type]
            if times or whole:
                return max(times, default=None)
        return None

    def rows(self) -> Iterator[tuple[int, tuple[str, ...], RawRow]]:
        """Yield number, keys and raw row of the rows that can be read, each once."""
        for batch in self.batches(events=False):
            keys = self.keys(batch)
            for seq, raw in enumerate(batch.rows, batch.seq):
                yield seq, keys, raw

    def damage(self) -> Damage:
        """Return what could not be read so far."""
        scanner = self._scanner
        return Damage(
            scanner.skipped + self._foreign,
            scanner.skipped_bytes,
            scanner.torn_bytes,
            self._numbers.missing,
            self._unnamed,
        )

    def _learn(self, block: Block) -> None:
        try:
            number, keys = unpack_shape(block.marker, block.payload)
        except ValueError:
            self._foreign += 1
            return
        shape = number, len(keys)
        self._shapes[shape] = block
        self._remember(shape, keys)

    def _remember(self, shape: Shape, keys: tuple[str, ...]) -> None:
        self._name_count += len(keys)
        if self._name_count > _MOST_NAMES:
            self._names.clear()
            self._name_count = len(keys)
        self._names[shape] = keys

    def _keys(self, shape: Shape) -> tuple[str, ...]:
        if shape not in self._names:
            block = self._shapes[shape]
            self._remember(shape, unpack_shape(block.marker, block.payload)[1])
        return self._names[shape]

    def _knows(self, shape: Shape) -> bool:
        # Its first definition is damaged, or stands before the offset at which reading began.
        while shape not in self._shapes and self._unsearched:
            self._look(*self._unsearched.pop())
        return shape in self._shapes

    def _look(self, start: int, end: int | None) -> None:
        for block in Scanner(_reads(self._fd, end), start, ANY_SHAPE).blocks():
            self._learn(block)


class Left(NamedTuple):
    """What a process has left of a journal that another one goes on with.

    Attributes:
        size: how long it is, in bytes.
        begins: what it begins with.
        records: the number of the next row or event.
        shapes: the next id of a shape.
    """

    size: int
    begins: bytes
    records: int
    shapes: int


def take_up(directory: OpenDirectory, name: str) -> Left | None:
    """Prepare a journal, whose writer has died, to be gone on with: what is torn off is cut.

    Args:
        directory: where it lives.
        name: its name there.

    Returns:
        What it holds; ``None`` where there is none.

    Raises:
        OSError: it cannot be read or cut.
    """
    try:
        fd = directory.open(name, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        scanner, records, shapes = Scanner(_reads(fd)), 0, 0
        for block in scanner.blocks():
            if block.marker == RECORDS:
                records = max(records, block.seq + block.records)
            elif block.marker in SHAPES:
                with suppress(ValueError):
                    shapes = max(shapes, unpack_shape(block.marker, block.payload)[0] + 1)
        if scanner.torn_bytes:
            os.ftruncate(fd, scanner.position)
            os.fsync(fd)
        os.lseek(fd, 0, os.SEEK_SET)
        return Left(scanner.position, os.read(fd, HEAD_SIZE), records, shapes)
    finally:
        os.close(fd)


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


def _reads(fd: int, end: int | None = None) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size if end is None else max(0, min(size, end - offset)))

    return read
