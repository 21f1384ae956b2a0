"""Reads the journal of one attempt, from where it was left, while it may still grow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

from keisei._io.files import OpenDirectory
from keisei.journal.decoding import CHUNK, RawRow, Run, Scanner, unpack_records
from keisei.journal.format import HEAD_SIZE, RECORDS, SHAPE, file_name
from keisei.journal.records import Damage


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
