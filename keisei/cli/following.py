"""What comes to a run's files: the rows of its journals, and the lines of its training log."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from keisei._io.files import OpenDirectory
from keisei.cli.keys import places_of
from keisei.journal.format import file_name
from keisei.journal.reader import AttemptReader, Value, read_run

_NEAR, _FAR = 1 << 16, 1 << 26  # bytes at a file's end in which the last rows or lines are sought
_LONGEST = 1 << 16  # bytes of a line; what is longer comes in pieces


class Shown(NamedTuple):
    """A row with the metrics that are wanted of it.

    Attributes:
        attempt: the attempt that logged it.
        seq: its number there.
        time: when it was logged, in seconds since the epoch.
        step: its training step, if it has one.
        values: the numbers by name.
    """

    attempt: int
    seq: int
    time: float
    step: int | None
    values: dict[str, Value]


class RowsTail:
    """The rows of a run: the last ones, then those that come, one attempt after the other.

    Args:
        directory: the run's directory.
        wanted: the metrics to give, by name or pattern; all where empty. Rows without any of them
            are passed over.

    Attributes:
        keys: the names of all metrics seen so far.
    """

    def __init__(self, directory: str, wanted: Sequence[str] = ()) -> None:
        self.keys: set[str] = set()
        self._journals = read_run(directory)
        self._wanted = wanted
        self._reader: AttemptReader | None = None
        self._places: dict[tuple[str, ...], list[int]] = {}

    def close(self) -> None:
        """Give the descriptor back."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def last(self, count: int) -> list[Shown]:
        """Give the last rows, reading no more than the ends of the journals; then go on there.

        Args:
            count: how many.
        """
        found: list[Shown] = []
        for attempt in reversed(self._journals.attempts()):
            reader = AttemptReader(self._journals.directory, attempt)
            try:
                found = [*self._last_of(reader, count - len(found)), *found]
            finally:
                if self._reader is None:
                    self._reader = reader
                else:
                    reader.close()
            if len(found) >= count:
                break
        return found

    def all_keys(self) -> set[str]:
        """Look through all journals for the names of metrics."""
        for attempt in self._journals.attempts():
            with AttemptReader(self._journals.directory, attempt) as reader:
                self.keys.update(*reader.shapes())
        return self.keys

    def new(self) -> Iterator[Shown]:
        """Give the rows that have come since."""
        attempts, done = self._journals.attempts(), 0
        if self._reader is not None:
            yield from self._rows(self._reader)
            path = os.path.join(self._journals.directory, file_name(self._reader.attempt))
            done = self._reader.attempt if _stands(self._reader.fileno(), path) else 0
        for attempt in attempts:
            if attempt > done:
                with suppress(FileNotFoundError):
                    reader = AttemptReader(self._journals.directory, attempt)
                    self.close()
                    self._reader = reader
                    yield from self._rows(reader)

    def _last_of(self, reader: AttemptReader, count: int) -> list[Shown]:
        size, rows = _NEAR, deque[Shown](maxlen=count)
        while True:
            whole = reader.seek_back(size)
            rows.clear()
            rows.extend(self._rows(reader))
            if len(rows) >= count or whole or (self._wanted and size >= _FAR):
                return list(rows)
            size *= 4

    def _rows(self, reader: AttemptReader) -> Iterator[Shown]:
        for seq, keys, raw in reader.rows():
            places = self._places.get(keys)
            if places is None:
                places = self._places[keys] = places_of(self._wanted, keys)
                self.keys.update(keys)
            if places or not self._wanted:
                values = {keys[place]: raw[place + 1] for place in places}
                yield Shown(reader.attempt, seq, raw[0], raw[-1], values)  # type: ignore[arg-type]


class LogTail:
    """The lines of a log: the last ones, then those that come. It may be missing, or replaced.

    Args:
        directory: the directory that it is in.
        name: its name there.

    Attributes:
        restarts: how often it was cut or replaced, and read from its start again.
    """

    def __init__(self, directory: str, name: str) -> None:
        self._directory, self._name = directory, name
        self._fd: int | None = None
        self._position = 0
        self._part = b""
        self.restarts = 0

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def last(self, count: int) -> list[str]:
        """Give the last lines, reading no more than the end of the file; then go on there.

        Args:
            count: how many.
        """
        if not self._open():
            return []
        assert self._fd is not None
        size, end = _NEAR, os.fstat(self._fd).st_size
        while True:
            self._position, self._part = max(0, end - size), b""
            lines = deque(self._lines(), maxlen=count + 1)
            if len(lines) > count or size >= min(end, _FAR):
                return list(lines)[-count:] if count else []
            size *= 4

    def new(self) -> Iterator[str]:
        """Give the lines that have come since."""
        if self._open():
            assert self._fd is not None
            yield from self._lines()
            cut = os.fstat(self._fd).st_size < self._position
            if cut or not _stands(self._fd, os.path.join(self._directory, self._name)):
                yield from self.rest()
                self.close()
                self._position = 0
                self.restarts += 1
                if self._open():
                    yield from self._lines()

    def rest(self) -> Iterator[str]:
        """Give the last line, where it has no newline and none is waited for."""
        if self._part:
            yield from _pieces(self._part)
            self._part = b""

    def _open(self) -> bool:
        if self._fd is None:
            with suppress(FileNotFoundError), OpenDirectory(self._directory) as directory:
                self._fd = directory.open(self._name, os.O_RDONLY)
        return self._fd is not None

    def _lines(self) -> Iterator[str]:
        assert self._fd is not None
        os.lseek(self._fd, self._position, os.SEEK_SET)
        while data := os.read(self._fd, 1 << 20):
            self._position += len(data)
            *lines, self._part = (self._part + data).split(b"\n")
            for line in lines:
                yield from _pieces(line)
            if len(self._part) > _LONGEST:
                yield from self.rest()


def _pieces(line: bytes) -> Iterator[str]:
    line = line.removesuffix(b"\r")
    for start in range(0, len(line) or 1, _LONGEST):
        yield line[start : start + _LONGEST].decode(errors="replace")


def _stands(fd: int, path: str) -> bool:
    """Tell whether an open file is the one that has its name, or nothing has."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return True
