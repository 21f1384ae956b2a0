"""Read the ends of a run's journals and of its training log, then what is appended to them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from keisei._io.files import OpenDirectory
from keisei.cli.metric_names import select
from keisei.journal.format import file_name
from keisei.journal.reader import AttemptReader, Value, read_run
from keisei.journal.superseding import Cuts, Stretches

_NEAR, _FAR = 1 << 16, 1 << 26  # bytes at a file's end in which the last rows or lines are searched
_LONGEST = 1 << 16  # bytes of a line; what is longer comes in pieces


class ShownRow(NamedTuple):
    """A row, with those of its metrics that are wanted.

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
    """Reads the rows of a run: the last ones, then new ones, one attempt after the other.

    Args:
        directory: the run's directory.
        wanted: the metrics, by name or pattern; all where empty. Rows without any of them are
            left out.
        part: the part of the run whose rows they are; ``None`` for the owner's own.

    Attributes:
        keys: the names of all metrics seen so far.
    """

    def __init__(self, directory: str, wanted: Sequence[str] = (), part: str | None = None) -> None:
        self.keys: set[str] = set()
        self._journals = read_run(directory).of(part)
        self._wanted = wanted
        self._reader: AttemptReader | None = None
        self._selected: dict[tuple[str, ...], list[int]] = {}

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def last(self, count: int) -> list[ShownRow]:
        """Return the last rows, reading only the ends of the journals; `new` goes on from there.

        Of earlier attempts, what the run has left behind by resuming is left out.

        Args:
            count: how many.
        """
        found: list[ShownRow] = []
        cuts: Cuts | None = None
        for attempt in reversed(self._journals.attempts()):
            reader = self._journals.open(attempt)
            try:
                if self._reader is not None and cuts is None:
                    cuts = self._journals.cuts()
                cut = Stretches(()) if cuts is None else cuts.of(attempt)
                found = [*self._last_of(reader, count - len(found), cut), *found]
            finally:
                if self._reader is None:
                    self._reader = reader
                else:
                    reader.close()
            if len(found) >= count:
                break
        return found

    def all_keys(self) -> set[str]:
        """Return the names of all metrics, from all journals."""
        for attempt in self._journals.attempts():
            with self._journals.open(attempt) as reader:
                self.keys.update(*reader.shapes())
        return self.keys

    def new(self) -> Iterator[ShownRow]:
        """Yield the rows that have come since."""
        attempts, done = self._journals.attempts(), 0
        if self._reader is not None:
            yield from self._rows(self._reader)
            name = file_name(self._reader.attempt, self._journals.part)
            path = os.path.join(self._journals.directory, name)
            done = self._reader.attempt if _is_current(self._reader.fileno(), path) else 0
        for attempt in attempts:
            if attempt > done:
                with suppress(FileNotFoundError):
                    reader = self._journals.open(attempt)
                    self.close()
                    self._reader = reader
                    yield from self._rows(reader)

    def _last_of(self, reader: AttemptReader, count: int, cut: Stretches) -> list[ShownRow]:
        size, rows = _NEAR, deque[ShownRow](maxlen=count)
        while True:
            whole = reader.seek_back(size)
            rows.clear()
            rows.extend(row for row in self._rows(reader) if row.seq not in cut)
            if len(rows) >= count or whole or (self._wanted and size >= _FAR):
                return list(rows)
            size *= 4

    def _rows(self, reader: AttemptReader) -> Iterator[ShownRow]:
        for seq, keys, raw in reader.rows():
            selected = self._selected.get(keys)
            if selected is None:
                selected = self._selected[keys] = select(self._wanted, keys)
                self.keys.update(keys)
            if selected or not self._wanted:
                values = {keys[index]: raw[index + 1] for index in selected}
                yield ShownRow(reader.attempt, seq, raw[0], raw[-1], values)  # type: ignore[arg-type]


class LogTail:
    """Reads the lines of a log file: the last ones, then new ones. It may be missing, or replaced.

    Args:
        directory: its directory.
        name: its name there.

    Attributes:
        name: its name there.
        restarts: how often it was cut or replaced, and read from its start again.
    """

    def __init__(self, directory: str, name: str) -> None:
        self._directory, self.name = directory, name
        self._fd: int | None = None
        self._position = 0
        self._part = b""
        self.restarts = 0

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def last(self, count: int) -> list[str]:
        """Return the last lines, reading only the end of the file; `new` goes on from there.

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
        """Yield the lines that have come since."""
        if self._open():
            assert self._fd is not None
            yield from self._lines()
            cut = os.fstat(self._fd).st_size < self._position
            if cut or not _is_current(self._fd, os.path.join(self._directory, self.name)):
                yield from self.rest()
                self.close()
                self._position = 0
                self.restarts += 1
                if self._open():
                    yield from self._lines()

    def rest(self) -> Iterator[str]:
        """Yield the last line, where it has no newline and none is waited for."""
        if self._part:
            yield from _pieces(self._part)
            self._part = b""

    def _open(self) -> bool:
        if self._fd is None:
            with suppress(FileNotFoundError), OpenDirectory(self._directory) as directory:
                self._fd = directory.open(self.name, os.O_RDONLY)
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


def _is_current(fd: int, path: str) -> bool:
    """Return whether an open file still has its name, or nothing has that name."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return True
