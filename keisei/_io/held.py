"""A directory that its owner holds open and locked, and follows where it is moved."""

from __future__ import annotations

import copy
import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from keisei._io import locks
from keisei._io.directories import OpenDirectory, make_directory
from keisei._io.forks import after_in_child
from keisei._log import logger
from keisei.errors import quoted

LOCK_TIMEOUT = 2.0  # seconds, for others that only look whether it is locked

_all: weakref.WeakSet[HeldDirectory] = weakref.WeakSet()


@dataclass(eq=False)
class _Opened:
    """An open directory, with how many use it now, and whether the last of them closes it."""

    directory: OpenDirectory
    users: int = 0
    given_up: bool = False


class HeldDirectory:
    """A directory that is held open from `hold` to `release`, and else opened for each use.

    While it is held, its lock says that its owner lives, and whatever is written goes where the
    directory is now: where it is moved it is followed, and where it is removed it is made again.
    Either is logged, once. A forked child closes its copy. Thread-safe.

    Args:
        path: the directory's path.

    Attributes:
        path: the same.
        locked: which directory is locked, as `locks.identity` says; ``None`` while none is.
        check: called with the open directory before each use, after a file in it is opened to be
            written, and before a name is replaced; what it raises refuses that.
        mark: what its temporary files have in their names that those of other owners have not.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.locked: str | None = None
        self.check: Callable[[OpenDirectory], object] = lambda directory: None
        self.mark = ""
        self._opened: _Opened | None = None
        self._left: tuple[str, str | None] | None = None  # where it stood at last, and which it was
        self._guard = threading.Lock()
        self._moved = False
        _all.add(self)

    def hold(self, directory: OpenDirectory) -> None:
        """Hold a directory from now on, whose lock was taken where it could be.

        Args:
            directory: the open directory; from now on it is closed here.
        """
        self._opened = _Opened(self._guarded(directory.detached()))

    def _guarded(self, directory: OpenDirectory) -> OpenDirectory:
        directory.guard = lambda: self.check(directory)
        directory.mark = self.mark
        return directory

    def lock(self, directory: OpenDirectory, *, is_ending: bool = False) -> None:
        """Lock a directory, which is to be held.

        Args:
            directory: the open directory.
            is_ending: whether an owner of it is about to release it, and is waited for.

        Raises:
            LockedError: another one holds its lock.
        """
        taken = locks.lock_directory(directory, LOCK_TIMEOUT, is_ending=is_ending)
        self.locked = locks.identity(directory) if taken else None

    @contextmanager
    def entered(self, *, checked: bool = True) -> Iterator[OpenDirectory]:
        """Open the directory for a `with` block.

        Args:
            checked: whether `check` may refuse it.

        Raises:
            OSError: it cannot be opened, or was removed and cannot be made again, or `check` has
                refused it.
        """
        opened = self._enter()
        if opened is None:
            with self._again() as directory:
                if checked:
                    self.check(directory)
                yield directory if checked else unguarded(directory)
            return
        try:
            if checked:
                self.check(opened.directory)
            yield opened.directory if checked else unguarded(opened.directory)
        finally:
            self._leave(opened)

    @contextmanager
    def seen(self) -> Iterator[OpenDirectory | None]:
        """Look into the directory as it is held, for a `with` block: nothing is checked or made.

        ``None`` where it is not held.
        """
        with self._guard:
            opened = self._opened
            if opened is not None:
                opened.users += 1
        if opened is None:
            yield None
            return
        try:
            yield opened.directory
        finally:
            self._leave(opened)

    @property
    def removed(self) -> bool:
        """Whether it is held, and was removed; one that was moved was not."""
        with self._guard:
            return self._opened is not None and _is_removed(self._opened.directory)

    def release(self) -> None:
        """Release the lock, and hold the directory no longer; a second call changes nothing."""
        with self._guard:
            opened, self._opened = self._opened, None
            if opened is not None:
                with suppress(OSError):  # a disk that fails keeps no lock
                    now = self.path if opened.directory.stands() else _path_now(opened.directory)
                    self._left = now or self.path, locks.identity(opened.directory)
                if self.locked:
                    locks.unlock_directory(opened.directory)
                    self.locked = None
                opened.given_up = True
                self._close_unused(opened)

    def _again(self) -> OpenDirectory:
        """Open it for one use: after its release only where it still is the same one."""
        if self._left is None:
            return self._guarded(OpenDirectory(self.path))
        path, identity = self._left
        directory = OpenDirectory(path)
        try:
            if locks.identity(directory) != identity:
                raise FileNotFoundError(errno.ENOENT, "another directory stands there now", path)
        except OSError:
            directory.close()
            raise
        return self._guarded(directory)

    def _enter(self) -> _Opened | None:
        with self._guard:
            opened = self._opened
            if opened is not None:
                if not opened.directory.stands():
                    opened = self._followed(opened)
                opened.users += 1
            return opened

    def _followed(self, opened: _Opened) -> _Opened:
        """Return the directory that its path does not lead to any more, or one in its place."""
        directory = opened.directory
        if not _is_removed(directory):
            if not self._moved:
                self._moved = True
                now = _path_now(directory)
                where = f"to {quoted(now, 300)}" if now else "away"
                logger.warning(
                    "%s was moved %s while its owner lives: what is written goes there",
                    quoted(self.path, 300),
                    where,
                )
            return opened
        new = self._in_its_place()
        self._opened, opened.given_up = new, True
        self._close_unused(opened)
        return new

    def _in_its_place(self) -> _Opened:
        """Return a directory in the place of the one that was removed."""
        try:
            make_directory(self.path)
            new = _Opened(self._guarded(OpenDirectory(self.path)))
        except OSError as exc:
            reason = f"it was removed while its owner lives, and: {exc.strerror or exc}"
            raise OSError(exc.errno, reason, self.path) from exc
        try:
            self.lock(new.directory)
        except OSError as exc:
            new.directory.close()
            reason = "it was removed while its owner lives, and another owner holds the new one"
            raise OSError(errno.EBUSY, reason, self.path) from exc
        logger.error(
            "%s was removed while its owner lives: it is made again, and what it held is lost",
            quoted(self.path, 300),
        )
        return new

    def _leave(self, opened: _Opened) -> None:
        with self._guard:
            opened.users -= 1
            self._close_unused(opened)

    def _close_unused(self, opened: _Opened) -> None:
        if opened.given_up and not opened.users:
            with suppress(OSError):
                opened.directory.close()

    def _forget(self) -> None:
        """Close a forked child's copy; the parent's lock stays as it is."""
        self._guard = threading.Lock()  # the parent's may have been held
        opened, self._opened, self.locked = self._opened, None, None
        if opened is not None:
            with suppress(OSError):
                opened.directory.close()


class JoinedDirectory(HeldDirectory):
    """Another process's directory, which is held open and followed where it is moved.

    Its lock is the owner's: it is neither locked here, nor made again where it was removed.
    """

    def lock(self, directory: OpenDirectory, *, is_ending: bool = False) -> None:
        """Leave the lock to the owner."""

    def _in_its_place(self) -> _Opened:
        return _Opened(OpenDirectory(self.path))


class FollowedDirectory:
    """A directory that is found again where it was moved: held open from the first use on.

    Args:
        path: the directory's path.
    """

    def __init__(self, path: str) -> None:
        self._first, self._closed = path, False
        self._directory: OpenDirectory | None = None
        self._guard = threading.Lock()

    def path(self) -> str:
        """Return where it stands now; of one that was removed, what stands in its place.

        Raises:
            OSError: it cannot be opened, or stands nowhere that is known.
        """
        with self._guard:
            directory = self._directory
            if self._closed:
                return self._first
            if directory is None or (not directory.stands() and _is_removed(directory)):
                self._directory = OpenDirectory(self._first)
                if directory is not None:
                    directory.close()
            elif not directory.stands():
                now = _path_now(directory)
                if now is None:
                    raise FileNotFoundError(errno.ENOENT, "it was moved away", directory.path)
                directory.path = now
            assert self._directory is not None
            return self._directory.path

    def stat(self, name: str) -> os.stat_result:
        """Return what the system knows of a file there.

        Raises:
            OSError: there is none.
        """
        return os.stat(os.path.join(self.path(), name))

    def close(self) -> None:
        """Close it: it is where it was last, from now on."""
        with self._guard:
            self._closed = True
            if self._directory is not None:
                self._first = self._directory.path
                self._directory.close()
                self._directory = None


def unguarded(directory: OpenDirectory) -> OpenDirectory:
    """Return an open directory as one whose guard refuses nothing; the first is to be closed."""
    other = copy.copy(directory)
    other.guard = lambda: None
    return other


def _is_removed(directory: OpenDirectory) -> bool:
    """Return whether an open directory stands nowhere any more."""
    if directory.fd is None:
        return True
    try:
        if os.fstat(directory.fd).st_nlink:
            os.listdir(directory.fd)  # some file systems count no links
            return False
    except OSError as exc:
        return exc.errno in (errno.ENOENT, errno.ESTALE)
    return True


def _path_now(directory: OpenDirectory) -> str | None:
    """Return where an open directory stands now, where the system can say it."""
    with suppress(OSError):
        path = os.readlink(f"/proc/self/fd/{directory.fd}")
        if directory.fd is not None and os.path.samestat(os.lstat(path), os.fstat(directory.fd)):
            return path
    return None


def _close_copies() -> None:
    for held in tuple(_all):
        held._forget()


after_in_child(_close_copies)
