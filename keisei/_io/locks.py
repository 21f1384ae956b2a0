"""Keep other processes away from a run for a moment: a file's lock, where the system knows them."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from keisei._io import files

_NO_LOCKS_HERE = frozenset([errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK])
_LOCK_TIMEOUT = 10.0


@contextmanager
def locked(directory: files.OpenDirectory, name: str) -> Iterator[None]:
    """Hold a file's lock against other processes, for a moment.

    Where the file system knows no locks, it goes on without one: `mkdir` still lets only one
    start make a directory.

    Args:
        directory: where the file lives.
        name: its name there; it is made where it is missing.

    Raises:
        TimeoutError: somebody has held it for 10 seconds.
    """
    fd = directory.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        give_up = time.monotonic() + _LOCK_TIMEOUT
        while not _try_lock(fd):
            if time.monotonic() > give_up:
                path = os.path.join(directory.path, name)
                raise TimeoutError(errno.ETIMEDOUT, "another start holds its lock", path)
            time.sleep(0.002)
        try:
            yield
        finally:
            # Not left to close: a process forked meanwhile would keep the lock for its life.
            _unlock(fd)
    finally:
        os.close(fd)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, 2**31 - 2, os.SEEK_SET)  # a byte that no log reaches
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, 2**31 - 2, os.SEEK_SET)
        with suppress(OSError):
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno not in _NO_LOCKS_HERE:
                raise
        return True

    def _unlock(fd: int) -> None:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
