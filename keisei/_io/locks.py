"""Locks on files and directories, against other processes: for a moment, or for long.

A lock is the kernel's (`flock`, on Windows `msvcrt.locking`): it is free when its process has
ended, in whatever way. A process forked from the holder closes its copy and does not keep the
lock. Where the file system has no locks, the work goes on without one.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from keisei._io import files
from keisei._io.forks import after_in_child

_NO_LOCKS_HERE = frozenset(
    [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL]
)
_LOCK_TIMEOUT = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05
_LONGEST_CONTENT = 4096  # bytes that are read of what a holder has written
_REOPENED = 3  # times, where the locked file is not the one of that name: some systems never agree

_held: weakref.WeakSet[HeldLock] = weakref.WeakSet()


class LockedError(TimeoutError):
    """Another process, or another part of this one, holds the lock.

    Attributes:
        holder: what the holder has written into the file; empty where it has not yet.
    """

    holder: bytes = b""


class HeldLock:
    """A file's lock, held until `release` or the end of the process; thread-safe.

    Attributes:
        path: the locked file.
        exclusive: whether the lock keeps others away: ``False`` where the file system has no
            locks.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.exclusive = False
        self._fd: int | None = fd
        self._guard = threading.Lock()
        _held.add(self)

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the lock; a second call changes nothing."""
        with self._guard:
            fd, self._fd = self._fd, None
        if fd is not None:
            # Not left to close: a process forked meanwhile would keep the lock for its life.
            if self.exclusive:
                _unlock(fd)
            with suppress(OSError):
                os.close(fd)

    def _wait(self, deadline: float, give_up: threading.Event | None) -> None:
        """Wait for the lock; where there are no locks, there is nothing to wait for."""
        assert self._fd is not None
        pause = _FIRST_PAUSE
        while (taken := _try_lock(self._fd)) is False:
            given_up = give_up is not None and give_up.is_set()
            if given_up or time.monotonic() >= deadline:
                error = LockedError(errno.ETIMEDOUT, "another one holds its lock", self.path)
                error.holder = self._read()
                raise error
            if give_up is None:
                time.sleep(pause)
            else:
                give_up.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        self.exclusive = taken is True

    def _write(self, content: bytes) -> None:
        """Write who holds the lock into the file, for those who find it taken."""
        assert self._fd is not None
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.write(self._fd, content)

    def _read(self) -> bytes:
        assert self._fd is not None
        os.lseek(self._fd, 0, os.SEEK_SET)
        return os.read(self._fd, _LONGEST_CONTENT)

    def _stands(self, directory: files.OpenDirectory, name: str) -> bool:
        """Check that the file is still the one of that name, and not removed or replaced."""
        assert self._fd is not None
        try:
            return os.path.samestat(os.fstat(self._fd), directory.stat(name))
        except FileNotFoundError:
            return False

    def _forget(self) -> None:
        """Close a forked child's copy; the parent's lock stays as it is."""
        fd, self._fd = self._fd, None
        self._guard = threading.Lock()  # the parent's may have been held
        if fd is not None:
            with suppress(OSError):
                os.close(fd)


def hold(
    directory: files.OpenDirectory,
    name: str,
    *,
    content: bytes,
    timeout: float,
    give_up: threading.Event | None = None,
) -> HeldLock:
    """Take a lock for long, and write into its file who holds it. It blocks.

    The file is made where it is missing, and never removed: two processes could hold the locks of
    two files of that name.

    Args:
        directory: where the file lives.
        name: its name there.
        content: who holds it, for those who find it taken.
        timeout: how long to wait for another holder, in seconds; 0 tries once.
        give_up: ends the wait early when it is set.

    Returns:
        The lock; `HeldLock.exclusive` is ``False`` where the file system has no locks.

    Raises:
        LockedError: another one holds it; the error has what that one wrote.
        OSError: the file cannot be opened or written.
    """
    lock = _taken(directory, name, timeout, give_up)
    try:
        lock._write(content)
    except BaseException as exc:
        lock.release()
        if isinstance(exc, OSError):
            exc.filename = lock.path
        raise
    return lock


@contextmanager
def locked(
    directory: files.OpenDirectory, name: str, timeout: float = _LOCK_TIMEOUT
) -> Iterator[None]:
    """Hold a file's lock for a moment; the file's content is left alone.

    Where the file system has no locks, it goes on without one: `mkdir` still lets only one start
    make a directory.

    Args:
        directory: where the file lives.
        name: its name there; it is made where it is missing.
        timeout: how long to wait for another holder, in seconds.

    Raises:
        LockedError: somebody has held it for so long.
    """
    with _taken(directory, name, timeout, None):
        yield


def replaced(directory: files.OpenDirectory, name: str) -> HeldLock:
    """Replace a file by a copy of itself, and hold the copy's lock.

    Whoever has the file open, or holds its lock, has a file without a name from then on.

    Args:
        directory: where the file lives.
        name: its name there.

    Raises:
        OSError: it cannot be copied; it stays as it is.
    """
    temporary = f".{name}.new.tmp"
    directory.unlink(temporary)
    fd = directory.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    lock = HeldLock(os.path.join(directory.path, name), fd)
    try:
        lock.exclusive = _try_lock(fd) is True
        for part in files.parts(directory, name):
            files.write_all(fd, part)
        os.fsync(fd)
        directory.replace(temporary, name)
    except BaseException:
        lock.release()
        directory.unlink(temporary)
        raise
    return lock


def _taken(
    directory: files.OpenDirectory, name: str, timeout: float, give_up: threading.Event | None
) -> HeldLock:
    deadline = time.monotonic() + timeout
    path = os.path.join(directory.path, name)
    for attempt in range(_REOPENED):
        lock = HeldLock(path, directory.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND))
        try:
            lock._wait(deadline, give_up)
            if lock._stands(directory, name) or attempt == _REOPENED - 1:
                return lock
        except BaseException as exc:
            lock.release()
            if isinstance(exc, OSError):
                exc.filename = path
            raise
        lock.release()  # its file was removed or replaced meanwhile: take the new one's
    raise AssertionError("unreachable")


def lock_directory(
    directory: files.OpenDirectory, timeout: float, *, is_ending: bool = False
) -> bool:
    """Lock a directory for as long as it is held open; blocks where somebody else looks at it.

    No file is needed for it, and the lock goes with the directory where that is moved.

    Args:
        directory: the directory, held open.
        timeout: how long to wait for others that only look, in seconds.
        is_ending: whether its holder is about to release it, and is waited for as well.

    Returns:
        Whether it is locked now: not where the file system, or Windows, has no such locks.

    Raises:
        LockedError: another one holds its lock.
    """
    if directory.fd is None:
        return False
    deadline = time.monotonic() + timeout
    while (taken := _try_lock(directory.fd)) is False:
        if (is_locked(directory) and not is_ending) or time.monotonic() > deadline:
            raise LockedError(errno.ETIMEDOUT, "another one holds its lock", directory.path)
        time.sleep(_FIRST_PAUSE)
    return taken is True


def share_directory(directory: files.OpenDirectory, timeout: float) -> bool:
    """Share a directory's lock for as long as it is held open; blocks while one has it alone.

    Whoever uses the directory shares its lock, and whoever would remove it has to have it alone
    (`lock_directory`).

    Args:
        directory: the directory, held open.
        timeout: how long to wait for who has it alone, in seconds.

    Returns:
        Whether it is shared now: not where the file system, or Windows, has no such locks.

    Raises:
        LockedError: another one has the lock alone.
    """
    if directory.fd is None:
        return False
    deadline = time.monotonic() + timeout
    while (taken := _try_lock(directory.fd, shared=True)) is False:
        if time.monotonic() > deadline:
            raise LockedError(errno.ETIMEDOUT, "another one holds its lock", directory.path)
        time.sleep(_FIRST_PAUSE)
    return taken is True


def unlock_directory(directory: files.OpenDirectory) -> None:
    """Release a directory's lock now, whoever has a copy of its descriptor."""
    if directory.fd is not None:
        _unlock(directory.fd)


def identity(directory: files.OpenDirectory) -> str | None:
    """Return which directory this is, for this kernel: the locks of two mounts may be apart."""
    if directory.fd is None:
        return None
    found = os.fstat(directory.fd)
    return f"{found.st_dev}:{found.st_ino}"


def is_locked(directory: files.OpenDirectory) -> bool | None:
    """Return whether anybody holds a directory's lock; ``None`` where there are no such locks."""
    if directory.fd is None:
        return None
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory.fd)
    try:
        taken = _try_lock(fd, shared=True)  # so that two that look do not see each other
        return None if taken is None else not taken
    finally:
        os.close(fd)


def is_file_locked(directory: files.OpenDirectory, name: str) -> bool | None:
    """Return whether anybody holds a file's lock; ``None`` where there are no locks.

    Args:
        directory: where the file lives.
        name: its name there.

    Raises:
        OSError: there is no such file, or it cannot be opened.
    """
    fd = directory.open(name, os.O_RDWR)
    try:
        taken = _try_lock(fd, shared=True)  # so that two that look do not see each other
        return None if taken is None else not taken
    finally:
        os.close(fd)


def _close_copies() -> None:
    for lock in tuple(_held):
        lock._forget()


after_in_child(_close_copies)


if sys.platform == "win32":
    import msvcrt

    _LOCKED_BYTE = 2**31 - 2  # no log reaches it

    def _try_lock(fd: int, *, shared: bool = False) -> bool | None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        with suppress(OSError):
            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int, *, shared: bool = False) -> bool | None:
        """Try to lock a file; ``None`` where the file system has no locks."""
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno not in _NO_LOCKS_HERE:
                raise
            return None
        return True

    def _unlock(fd: int) -> None:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
