"""The journal's file, as its thread writes it: what to write next, and what to do when it fails."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from time import time

from keisei._io.files import OpenDirectory
from keisei.journal.format import HEADER, SHAPE, VERSION, file_name, pack_json, pack_records


class JournalFile:
    """The file, as the journal's thread writes it.

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
        self._data = self._left = memoryview(b"")
        self._next = 0

    def add(self, records: list[bytes], skipped: int) -> None:
        """Put records into the bytes to write next; there must be none.

        Args:
            records: rows and events.
            skipped: how many rows were dropped before them.
        """
        shapes = [self.shapes.popleft() for _ in range(len(self.shapes))]
        names = [pack_json(SHAPE, {"id": number, "keys": keys}) for number, keys in shapes]
        self._next += skipped
        blocks = [*names, *pack_records(self._next, records), *names]
        if not blocks:
            return
        if not self._begun:
            self._begun = True
            about = {"version": VERSION, "attempt": self._attempt, "time": time()}
            blocks.insert(0, pack_json(HEADER, about))
        self._next += len(records)
        self.pending = len(records)
        self._data = self._left = memoryview(b"".join(blocks))

    def write(self) -> None:
        """Write the bytes that there are.

        After a failed fsync the system may have dropped what it held, and says so only once. The
        bytes are then written once more, through a new descriptor; a reader sees by the sequence
        numbers what is there twice.

        Raises:
            OSError: it is to be tried again.
        """
        if self._data:
            if self._fd is None:
                self._fd = self._open()
            while self._left:
                self._left = self._left[os.write(self._fd, self._left) :]
            if self._sync:
                try:
                    os.fsync(self._fd)
                except OSError:
                    self._left = self._data
                    self.close()
                    raise
            self.bytes += len(self._data)
            self.written += self.pending
            self._data = self._left = memoryview(b"")
            self.pending = 0
        self.error = None

    def _open(self) -> int:
        exclusive = 0 if self._made else os.O_EXCL
        with OpenDirectory(self._directory) as directory:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | exclusive
            fd = directory.open(file_name(self._attempt), flags)
            self._made = True
            try:
                if self._sync:
                    directory.sync()
            except OSError:
                os.close(fd)
                raise
        return fd

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with suppress(OSError):
                os.close(fd)
