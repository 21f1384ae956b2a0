"""Read the end of a log, then what is appended to it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from keisei._io.files import OpenDirectory

_NEAR, _FAR = 1 << 16, 1 << 26  # bytes at a file's end in which the last lines are searched
_LONGEST = 1 << 16  # bytes of a line; what is longer comes in pieces


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
            if cut or not is_current(self._fd, os.path.join(self._directory, self.name)):
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


def is_current(fd: int, path: str) -> bool:
    """Return whether an open file still has its name, or nothing has that name."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return True
