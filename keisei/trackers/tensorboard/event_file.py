"""An event file: its record format (TFRecord), and how it grows by whole batches."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

from keisei._io import files
from keisei.errors import TrackerError

T = TypeVar("T")

_PIECE = 1 << 20  # bytes that are copied at once
_AROUND = 16  # bytes around a record's data: its length, and a checksum of each


class EventFile:
    """A file that grows by whole batches of events, however its process ends.

    Args:
        directory: where it lives.
        name: its name there; it is made where it is missing.

    Attributes:
        size: how many of its bytes are whole.
    """

    def __init__(self, directory: files.OpenDirectory, name: str) -> None:
        self._path = os.path.join(directory.path, name)
        self._fd: int | None = directory.open(name, os.O_RDWR | os.O_CREAT)
        self.size = 0
        self._torn = True  # until it has been looked at

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._fd is None

    def close(self) -> None:
        """Close it; only the first call does anything."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def recover(self, parse_mark: Callable[[bytes], T | None]) -> T | None:
        """Return what the last mark says, and cut what stands behind it.

        Args:
            parse_mark: returns what an event says as a mark; ``None`` where it is none.

        Returns:
            ``None`` where there is no mark.
        """
        assert self._fd is not None
        found = None
        with open(self._fd, "rb", closefd=False) as file:
            for end, payload in _payloads(file, os.fstat(self._fd).st_size):
                data, checksum = payload[:-4], payload[-4:]
                mark = parse_mark(data)
                if mark is not None and _masked_crc(data) == checksum:
                    self.size, found = end, mark
        self._cut()
        return found

    def append(self, data: bytes) -> None:
        """Append a batch: all of it, or nothing that counts.

        Raises:
            OSError: it may be tried again.
            TrackerError: the file is closed.
        """
        if self._fd is None:
            raise TrackerError("the run has ended")
        try:
            if self._torn:
                self._cut()
            os.lseek(self._fd, self.size, os.SEEK_SET)
            self._torn = True
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            exc.filename = self._path
            raise
        self._torn = False
        self.size += len(data)

    def _cut(self) -> None:
        assert self._fd is not None
        if os.fstat(self._fd).st_size > self.size:
            os.ftruncate(self._fd, self.size)
        self._torn = False


def held_until(
    directory: files.OpenDirectory, name: str, holds: Callable[[bytes], bool | None]
) -> tuple[int, bool]:
    """Return the end of the last mark in a file that holds, before the first that does not.

    Args:
        directory: where the file lives.
        name: its name there.
        holds: returns whether an event is a mark that holds; ``None`` where it is no mark.

    Returns:
        The end, in bytes, 0 where there is none; and whether there is one that does not hold.
    """
    found = 0
    with open(directory.open(name, os.O_RDONLY), "rb") as file:
        for end, payload in _payloads(file, os.fstat(file.fileno()).st_size):
            mark = holds(payload[:-4])
            if mark is False:
                return found, True
            if mark:
                found = end
    return found, False


def write_joined(
    directory: files.OpenDirectory, name: str, head: bytes, parts: Iterable[tuple[str, int]]
) -> None:
    """Write a file of what several begin with, whole or not at all; it survives a loss of power.

    Args:
        directory: where all of them live.
        name: its name.
        head: what it begins with.
        parts: names of files, and how many bytes of each follow.

    Raises:
        OSError: it could not be written.
    """
    staged = ".keisei-joined"  # a name that TensorBoard takes for no event file
    with open(directory.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(head)
        for part, size in parts:
            with open(directory.open(part, os.O_RDONLY), "rb") as source:
                while size > 0 and (data := source.read(min(size, _PIECE))):
                    file.write(data)
                    size -= len(data)
        file.flush()
        os.fsync(file.fileno())
    directory.replace(staged, name)
    directory.sync()


def framed(data: bytes) -> bytes:
    """Return an event as a record of the file: length, data, and a checksum of each."""
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _payloads(file: io.BufferedReader, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield where each record ends, and its data and checksum, up to a torn one."""
    end = 0
    while end + _AROUND < size:
        (length,) = struct.unpack_from("<Q", file.read(12))
        if not 0 < length <= size - end - _AROUND:
            return
        end += _AROUND + length
        yield end, file.read(length + 4)


def _masked_crc(data: bytes) -> bytes:
    """Return the checksum of the format: CRC-32C, rotated and shifted."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
