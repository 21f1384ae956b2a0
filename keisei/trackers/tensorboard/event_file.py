"""An event file: its record format (TFRecord), and how it grows by whole batches."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

from keisei._io import files
from keisei.errors import TrackerError

T = TypeVar("T")

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
