"""A checkpoint's files, written and read in chunks: each byte is digested on its way.

Beside the calls that release the GIL (write, read, digest) a chunk takes a few microseconds, and
0.1 ms where it is copied, so that an event loop beside it goes on.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from keisei._io.files import OpenDirectory
from keisei.checkpoints.digests import new_digest
from keisei.checkpoints.manifest import FileEntry
from keisei.errors import CheckpointError, quoted

CHUNK = 1 << 20  # bytes
_AHEAD = 32 * CHUNK  # bytes that are written before the disk is told to begin with them


class Sink:
    """A new file of a checkpoint, which nothing else writes.

    Args:
        directory: where it is made.
        name: its name there; nothing may stand there yet.
        algorithm: of its digest.

    Raises:
        OSError: it cannot be made or written; so for each method, too.
    """

    def __init__(self, directory: OpenDirectory, name: str, algorithm: str) -> None:
        self._name = name
        self._path = os.path.join(directory.path, name)
        self._digest = new_digest(algorithm)
        self._buffer = memoryview(bytearray(CHUNK))
        self._filled = 0
        self._size = self._begun = 0
        fd = directory.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._file = io.FileIO(fd, "w")

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def add(self, data: memoryview, *, stable: bool) -> None:
        """Write bytes.

        Args:
            data: the bytes, one dimension of them.
            stable: whether nobody can change them meanwhile; else each chunk is copied first.
        """
        while data:
            if stable and not self._filled and len(data) >= CHUNK:
                self._put(data[:CHUNK])
                data = data[CHUNK:]
                continue
            count = min(len(data), CHUNK - self._filled)
            self._buffer[self._filled : self._filled + count] = data[:count]
            self._filled += count
            data = data[count:]
            if self._filled == CHUNK:
                self._flush()

    def end(self) -> FileEntry:
        """Write what is left, sync it, and return what the file is."""
        self._flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as exc:
            exc.filename = self._path
            raise
        return FileEntry(name=self._name, size=self._size, digest=self._digest.hexdigest())

    def _flush(self) -> None:
        filled, self._filled = self._filled, 0
        self._put(self._buffer[:filled])

    def _put(self, data: memoryview) -> None:
        self._digest.update(data)
        self._size += len(data)
        while data:
            try:
                data = data[self._file.write(data) :]
            except OSError as exc:
                exc.filename = self._path
                raise
        if self._size - self._begun >= _AHEAD:
            self._write_back()

    def _write_back(self) -> None:
        """Begin to move to the disk what is written so far, and not only with the sync.

        So 1 GiB took 0.5 s and not 0.8. On Linux the advice that bytes are not needed does it.
        """
        begun, self._begun = self._begun, self._size
        if sys.platform == "linux":
            with suppress(OSError):
                count = self._size - begun
                os.posix_fadvise(self._file.fileno(), begun, count, os.POSIX_FADV_DONTNEED)


class Source:
    """A file of a checkpoint, which is verified while it is read, from its start to its end.

    Args:
        directory: where it is.
        entry: what the manifest says of it; its name is a single component.
        algorithm: of its digest.

    Raises:
        CheckpointError: there is no such file, or it has another length (``corrupt`` is set).
        OSError: it cannot be opened; so for each method, too.
    """

    def __init__(self, directory: OpenDirectory, entry: FileEntry, algorithm: str) -> None:
        self._entry = entry
        self._path = os.path.join(directory.path, entry.name)
        self._digest = new_digest(algorithm)
        self._left = entry.size
        self._chunk = memoryview(b"")
        try:
            fd = directory.open(entry.name, os.O_RDONLY)
        except FileNotFoundError:
            raise self.corrupt("is missing") from None
        self._file = io.FileIO(fd, "r")
        try:
            if (size := os.fstat(fd).st_size) != entry.size:
                raise self.corrupt(f"has {size:,} bytes, and {entry.size:,} were saved")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def corrupt(self, problem: str) -> CheckpointError:
        """Return the error that says what is wrong with the file."""
        return CheckpointError(
            f"the checkpoint does not verify: {quoted(self._entry.name)} {problem}",
            path=self._path,
            corrupt=True,
        )

    def read(self, into: memoryview) -> None:
        """Read as many bytes as there is room for.

        Raises:
            CheckpointError: there are not so many (``corrupt`` is set).
        """
        while into:
            if not self._chunk and len(into) >= CHUNK:
                self._take(into[:CHUNK])
                into = into[CHUNK:]
                continue
            if not self._chunk:
                self._chunk = memoryview(bytearray(min(CHUNK, max(self._left, 1))))
                self._take(self._chunk)
            count = min(len(into), len(self._chunk))
            into[:count] = self._chunk[:count]
            self._chunk = self._chunk[count:]
            into = into[count:]

    def end(self) -> None:
        """Check that the file is at its end, and that its digest is the one that was saved.

        Raises:
            CheckpointError: it is not (``corrupt`` is set).
        """
        if self._left or self._chunk:
            raise self.corrupt("has more bytes than it should")
        if self._digest.hexdigest() != self._entry.digest:
            raise self.corrupt("has other bytes than were saved")

    def _take(self, into: memoryview) -> None:
        """Read from the disk, exactly as much as there is room for."""
        self._left -= len(into)
        rest = into
        while rest:
            try:
                count = self._file.readinto(rest)
            except OSError as exc:
                exc.filename = self._path
                raise
            if not count:
                raise self.corrupt("ends too early")
            rest = rest[count:]
        self._digest.update(into)
