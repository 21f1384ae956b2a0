"""A journal's file, as the background writer has it: what to write next, and what after a fault."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from time import time

from keisei._io.files import OpenDirectory
from keisei.journal.format import (
    HEADER,
    LARGE,
    SHAPE_ID,
    VERSION,
    Record,
    file_name,
    pack_json,
    pack_records,
    pack_shape,
    shape_id,
)
from keisei.journal.unread import Queued, written

_MOST_UNREPEATED = 1 << 20  # bytes


class JournalFile:
    """A journal's file; one thread at a time calls it.

    Args:
        directory: the run's directory.
        attempt: the attempt's number.
        sync: whether to force what is written to the disk.

    Attributes:
        path: its path.
        error: why the last attempt to write has failed; ``None`` where it has not.
        written: how many rows and events are written.
        pending: how many are in the bytes to write next.
        bytes: how many bytes are written.
        shapes: ids and keys of rows, here before any row that needs them.
    """

    def __init__(self, directory: str, attempt: int, *, sync: bool) -> None:
        self.path = os.path.join(directory, file_name(attempt))
        self._directory, self._attempt, self._sync = directory, attempt, sync
        self.shapes: deque[tuple[int, tuple[str, ...]]] = deque()
        self.error: OSError | None = None
        self.written = self.bytes = self.pending = 0
        self._fd: int | None = None
        self._made = self._begun = False
        self._pieces: list[memoryview] = []  # what to write next, and what is left of it
        self._left: deque[memoryview] = deque()
        # Shapes whose names are in the file once, and how many rows have them.
        self._unrepeated: dict[bytes, tuple[bytes, int]] = {}
        self._next = 0

    def add(self, records: list[Queued], skipped: int) -> None:
        """Put records into what to write next; there must be nothing.

        Args:
            records: rows and events.
            skipped: how many rows were dropped before them.
        """
        stored = written(records)
        blocks: list[bytes] = []
        for number, keys in [self.shapes.popleft() for _ in range(len(self.shapes))]:
            blocks.append(pack_shape(number, keys))
            self._unrepeated[shape_id(number)] = blocks[-1], 0
        self._next += skipped
        blocks += pack_records(self._next, stored)
        blocks += self._repeated(stored)
        if not blocks:
            return
        if not self._begun:
            self._begun = True
            about = {"version": VERSION, "attempt": self._attempt, "time": time()}
            blocks.insert(0, pack_json(HEADER, about))
        self._next += len(records)
        self.pending = len(records)
        self._pieces = list(_joined(blocks))
        self._left = deque(self._pieces)

    def _repeated(self, records: list[Record]) -> list[bytes]:
        """Return the shapes that by now more than one row has, each once."""
        if not self._unrepeated:
            return []
        repeated = []
        for key, count in Counter(r[SHAPE_ID] for r in records if isinstance(r, bytes)).items():
            if key in self._unrepeated:
                block, before = self._unrepeated.pop(key)
                if before + count > 1:
                    repeated.append(block)
                else:
                    self._unrepeated[key] = block, 1
        size = sum(len(block) for block, _ in self._unrepeated.values())
        while size > _MOST_UNREPEATED:  # of whoever makes up names, each row has its own
            size -= len(self._unrepeated.pop(next(iter(self._unrepeated)))[0])
        return repeated

    def write(self) -> None:
        """Write the bytes that there are.

        After a failed fsync the system may have dropped what it held, and says so only once. The
        bytes are then written once more, through a new descriptor; a reader sees by the sequence
        numbers what is there twice.

        Raises:
            OSError: it is to be tried again.
        """
        if self._pieces:
            if self._fd is None:
                self._fd = self._open()
            while self._left:
                done = os.write(self._fd, self._left[0])
                self._left[0] = self._left[0][done:]
                if not self._left[0]:
                    self._left.popleft()
            if self._sync:
                try:
                    os.fsync(self._fd)
                except OSError:
                    self._left = deque(self._pieces)
                    self.close()
                    raise
            self.bytes += sum(map(len, self._pieces))
            self.written += self.pending
            self._pieces, self.pending = [], 0
        self.error = None

    def _open(self) -> int:
        exclusive = 0 if self._made else os.O_EXCL
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | exclusive
        fd: int | None = None
        try:
            with OpenDirectory(self._directory) as directory:
                fd = directory.open(file_name(self._attempt), flags)
                self._made = True
                if self._sync:
                    directory.sync()
        except OSError:  # the directory's close can fail too
            if fd is not None:
                os.close(fd)
            raise
        return fd

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with suppress(OSError):
                os.close(fd)


def _joined(blocks: Iterable[bytes]) -> Iterator[memoryview]:
    """Yield blocks in few pieces to write; what is large is not copied."""
    small: list[bytes] = []
    size = 0
    for block in blocks:
        large = len(block) > LARGE // 4
        if small and (large or size + len(block) > LARGE):
            yield memoryview(b"".join(small))
            small, size = [], 0
        if large:
            yield memoryview(block)
        else:
            small.append(block)
            size += len(block)
    if small:
        yield memoryview(b"".join(small))
