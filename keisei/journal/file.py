"""A journal's file, as the background writer has it: what to write next, and what after a fault."""

from __future__ import annotations

import errno
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from time import time
from typing import NoReturn

from keisei._io.files import OpenDirectory
from keisei._io.held import HeldDirectory
from keisei._log import logger
from keisei.errors import quoted
from keisei.journal.attempt import Left
from keisei.journal.format import (
    HEADER,
    LARGE,
    SHAPE_ID,
    VERSION,
    Record,
    file_name,
    is_row,
    pack_json,
    pack_records,
    pack_shape,
    shape_id,
)
from keisei.journal.unread import Queued, written

_MOST_UNREPEATED = 1 << 20  # bytes
FEW = 8  # rows that are kept
_NAMES_EVERY = 1 << 22  # bytes; a reader looks for names that far from what it reads
_SHAPE_OF: Callable[[Record], bytes | str] = itemgetter(SHAPE_ID)

Shape = tuple[int, tuple[str, ...]]  # an id, and the keys of the rows that have it


class JournalFile:
    """A journal's file; one thread at a time calls it.

    Args:
        home: the run's directory.
        attempt: the attempt's number.
        known_shapes: returns the ids and keys that rows to come may have.
        sync: whether to force what is written to the disk.
        part: the part of the run whose journal it is; ``None`` for the owner's own.
        left: what an earlier process has left of it, where it goes on.

    Attributes:
        path: its path.
        error: why the last attempt to write has failed; ``None`` where it has not.
        written: how many rows and events are written.
        pending: how many are in the bytes to write next.
        bytes: how many bytes are written.
        dropped: how many are lost, with a file that was removed.
        first: the first few rows that it was given.
        last: the last few, the last one first.
        shapes: ids and keys of rows, here before any row that needs them.
    """

    def __init__(
        self,
        home: HeldDirectory,
        attempt: int,
        known_shapes: Callable[[], list[Shape]],
        *,
        sync: bool,
        part: str | None = None,
        left: Left | None = None,
    ) -> None:
        self._home, self._attempt, self._part, self._sync = home, attempt, part, sync
        self._known_shapes = known_shapes
        self._name = file_name(attempt, part)
        self.path = os.path.join(home.path, self._name)
        self.shapes: deque[Shape] = deque()
        self.error: OSError | None = None
        self.first: list[Record] = []
        self.last: list[Record] = []
        self.written = self.bytes = self.pending = self.dropped = 0
        self._made = self._begun = self._fresh = self._synced = False
        self._size = 0  # which the file has at least
        self._header = self._begins = b""
        self._pieces: list[memoryview] = []  # what to write next, and what is left of it
        self._left: deque[memoryview] = deque()
        # Shapes whose names are to be written behind the second row that has them, and how many
        # rows have; and those that wait for the next turn of all.
        self._unrepeated: dict[bytes, tuple[bytes, int]] = {}
        self._known: dict[bytes, bytes] = {}
        self._again_at = _NAMES_EVERY
        self._next = 0
        if left is not None:
            self._made, self._begun, self._synced = True, left.size > 0, True
            self._size, self._begins, self._next = left.size, left.begins, left.records

    def add(self, records: list[Queued], skipped: int) -> None:
        """Put records into what to write next; there must be nothing.

        Args:
            records: rows and events.
            skipped: how many rows were dropped before them.
        """
        stored = written(records)
        if rows := [one for one in stored[-FEW:] if is_row(one)]:
            self.last = rows[::-1]
            if not self.first:
                self.first = [one for one in stored[:FEW] if is_row(one)]
        self._fresh = True
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
            blocks.insert(0, self._new_header())
        self._next += len(records)
        self.pending = len(records)
        self._pieces = list(_joined(blocks))
        self._left = deque(self._pieces)

    def _new_header(self) -> bytes:
        """Return the block that the file begins with, where this process begins it."""
        if not self._header:
            about: dict[str, object] = {"version": VERSION, "attempt": self._attempt}
            about["time"] = time()
            if self._part is not None:
                about["part"] = self._part
            self._header = pack_json(HEADER, about)
        self._begins = self._header
        return self._header

    def _repeated(self, records: list[Record]) -> list[bytes]:
        """Return the shapes whose names are to be written behind these records.

        That is behind the second row of a shape, and then behind one row in every few MiB: who
        reads the end of a long file finds the names near it.
        """
        if self.bytes >= self._again_at:
            self._again_at = self.bytes + _NAMES_EVERY
            self._unrepeated.update((key, (block, 1)) for key, block in self._known.items())
            self._known.clear()
        if not self._unrepeated:
            return []
        repeated = []
        for key, count in Counter(map(_SHAPE_OF, records)).items():
            if key in self._unrepeated:
                block, before = self._unrepeated.pop(key)
                if before + count > 1:
                    repeated.append(block)
                    self._known[key] = block
                else:
                    self._unrepeated[key] = block, 1
        size = sum(len(block) for block, _ in self._unrepeated.values())
        size += sum(map(len, self._known.values()))
        while size > _MOST_UNREPEATED:  # of whoever makes up names, each row has its own
            if self._known:
                size -= len(self._known.pop(next(iter(self._known))))
            else:
                size -= len(self._unrepeated.pop(next(iter(self._unrepeated)))[0])
        return repeated

    def write(self) -> None:
        """Write the bytes that there are, and check that what was written still stands there.

        The file is open for no longer than that: a session holds one descriptor, its directory's.
        After a failed fsync the system may have dropped what it held, and says so only once. The
        bytes are then written once more; a reader sees by the sequence numbers what is there
        twice.

        Raises:
            OSError: it is to be tried again.
        """
        if self._pieces or (self._fresh and self._size):
            with self._home.entered() as directory:
                fd = self._open(directory)
                try:
                    begins = os.fstat(fd).st_size
                    self._write(fd, directory)
                    self._recheck(fd, begins, directory)
                finally:
                    os.close(fd)
            self.bytes += sum(map(len, self._pieces))
            self.written += self.pending
            self._pieces, self.pending = [], 0
        self._fresh = False
        self.error = None

    def _write(self, fd: int, directory: OpenDirectory) -> None:
        if self._sync and not self._synced:
            directory.sync()
            self._synced = True
        while self._left:
            done = os.write(fd, self._left[0])
            self._size += done
            self._left[0] = self._left[0][done:]
            if not self._left[0]:
                self._left.popleft()
        if self._sync and self._pieces:
            try:
                os.fsync(fd)
            except OSError:
                self._left = deque(self._pieces)
                raise

    def _recheck(self, fd: int, begins: int, directory: OpenDirectory) -> None:
        """Take back what was written where somebody has taken the directory over meanwhile.

        A process that was stopped between the look at it and the write goes on with the write.
        """
        try:
            self._home.check(directory)
        except OSError:
            os.ftruncate(fd, begins)
            raise

    def _open(self, directory: OpenDirectory) -> int:
        """Open the file, and check that it still begins as it did, and is no shorter."""
        flags = os.O_RDWR | os.O_APPEND
        if not self._size:
            flags |= os.O_CREAT | (0 if self._made else os.O_EXCL)
        try:
            fd = directory.open(self._name, flags)
        except FileNotFoundError:
            if self._size:
                self._begin_again("removed")
            raise
        self._made = True
        try:
            if self._size:
                os.lseek(fd, 0, os.SEEK_SET)
                head = self._begins[: self._size]
                found = os.read(fd, len(head))
                if not head.startswith(found):
                    directory.set_aside(self._name, "other")
                    self._begin_again("replaced")
                elif os.fstat(fd).st_size < self._size:
                    self._begin_again("cut")
        except OSError:
            os.close(fd)
            raise
        return fd

    def _begin_again(self, what: str) -> NoReturn:
        """Prepare the next write to begin the file again, and count what is lost.

        Raises:
            OSError: always; it says so.
        """
        lost, self.written, self._size, self._synced = self.written, 0, 0, False
        self.dropped += lost
        self._begun = bool(self._pieces)
        if self._pieces:
            shapes = [pack_shape(*shape) for shape in self._known_shapes()]
            self._pieces = [*_joined([self._new_header(), *shapes]), *self._pieces]
            self._left = deque(self._pieces)
        else:
            self.shapes.extendleft(self._known_shapes())
        reason = (
            f"it was {what} while the session lives, and {lost:,} rows and events with it; what "
            "follows is written to it anew"
        )
        logger.error("%s: %s", quoted(self.path, 300), reason)
        raise OSError(errno.ESTALE, reason, self.path)


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
