"""Directories that are held open, in which files are named by a single component.

Everything is opened relative to an open directory, no symlink is followed at its last step, files
get mode 0600 and directories 0700. Where there are no directory descriptors (Windows) paths are
joined instead, and no directory is synced: the file system orders the rename.
"""

from __future__ import annotations

import copy
import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from keisei._log import logger
from keisei.errors import quoted

_HAS_DIR_FD = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd
_O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_O_BINARY = getattr(os, "O_BINARY", 0)
_O_NONBLOCK = getattr(os, "O_NONBLOCK", 0)

LARGEST_READ = 64 * 2**20  # bytes of a file that is read as a whole: a sparse one may be endless

# What file systems say that cannot sync a directory: CIFS, some FUSE ones, shared folders.
_NO_SYNC_HERE = frozenset(
    [errno.EINVAL, errno.EBADF, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP]
)
_unsynced: dict[int, object] = {}  # the devices of which that was said


def leave_unsaid(path: str) -> None:
    """Log nothing of a file system that cannot sync directories: another process has done so."""
    with suppress(OSError):
        _unsynced.setdefault(os.stat(path).st_dev, None)


def _note_unsynced(path: str, device: int, exc: OSError) -> None:
    """Log once of a file system that it cannot sync directories, and that the work goes on."""
    mine = object()
    if _unsynced.setdefault(device, mine) is mine:  # in one step: several are synced at once
        logger.warning(
            "the file system of %s cannot sync a directory (%s): the work goes on, and a loss of "
            "power may take new files",
            quoted(path, 300),
            exc.strerror,
        )


class _Naming:
    """Has an error of the system name the whole path of a file."""

    def __init__(self, directory: str, name: str) -> None:
        self._at = directory, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: object, traceback: object) -> None:
        if isinstance(exc, OSError):
            exc.filename = os.path.join(*self._at)
            del exc.filename2  # or the message would have it, also where it is None


class OpenDirectory:
    """A directory held open, in which files are named by a single component.

    An error of the system names the whole path, although the file is opened relative to here.

    Args:
        path: an existing directory.
        follow: whether its last component may be a symlink.

    Attributes:
        guard: called after a file is opened to be written, and before a name is replaced; what it
            raises refuses that.
        mark: what temporary names have that nobody else's have.

    Raises:
        OSError: it is no directory, or a symlink.
    """

    def __init__(self, path: str, *, follow: bool = False) -> None:
        self.path, self.mark = path, ""
        self.guard: Callable[[], object] = lambda: None
        self._fd: int | None = None
        self._unsynced = False
        if _HAS_DIR_FD:
            flags = os.O_RDONLY | os.O_DIRECTORY | (0 if follow else _O_NOFOLLOW)
            self._fd = os.open(path, flags)
        elif (os.path.islink(path) and not follow) or not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def __enter__(self) -> OpenDirectory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def inside(self, name: str) -> OpenDirectory:
        """Open a directory in here, without following a symlink.

        Raises:
            OSError: it is no directory, or a symlink.
        """
        if self._fd is None:
            return OpenDirectory(self._at(name))
        other = copy.copy(self)
        other.path, other._unsynced = os.path.join(self.path, name), False
        with self._naming(name):
            flags = os.O_RDONLY | os.O_DIRECTORY | _O_NOFOLLOW
            other._fd = os.open(name, flags, dir_fd=self._fd)
        return other

    @property
    def fd(self) -> int | None:
        """Its descriptor; ``None`` where the system has none for directories."""
        return self._fd

    def detached(self) -> OpenDirectory:
        """Return it as another object, which is not closed with this one."""
        other = copy.copy(self)
        self._fd = None
        return other

    def close(self) -> None:
        """Close it."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def stands(self) -> bool:
        """Return whether its path still leads to it."""
        if self._fd is None:
            return os.path.isdir(self.path)
        with self._naming(""):
            own = os.fstat(self._fd)
        try:
            return os.path.samestat(os.lstat(self.path), own)
        except OSError:
            return False

    def _at(self, name: str) -> str:
        return name if self._fd is not None else os.path.join(self.path, name)

    def _naming(self, name: str) -> _Naming:
        return _Naming(self.path, name)

    def open(self, name: str, flags: int) -> int:
        """Open a regular file without following a symlink, and give its descriptor.

        Nothing else can make it wait: a pipe or a device in the file's place is an error.
        """
        with self._naming(name):
            if self._fd is None and os.path.islink(self._at(name)):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            flags |= _O_NOFOLLOW | _O_BINARY | _O_NONBLOCK
            fd = os.open(self._at(name), flags, 0o600, dir_fd=self._fd)
        made = bool(flags & os.O_EXCL)
        try:
            with self._naming(name):
                mode = stat.S_IFREG if made else os.fstat(fd).st_mode
                if stat.S_ISDIR(mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                if not stat.S_ISREG(mode):
                    raise OSError(errno.EINVAL, "no regular file stands there")
            if flags & (os.O_WRONLY | os.O_RDWR):
                self.guard()
        except BaseException:
            os.close(fd)
            if made:
                self.unlink(name)
            raise
        return fd

    def make(self, name: str, *, sync: bool = True) -> bool:
        """Make a directory here.

        Args:
            name: its name.
            sync: whether it survives a power loss from now on, and not from the next `sync` on.

        Returns:
            Whether it was made; what stands there stays as it is.
        """
        with self._naming(name):
            try:
                os.mkdir(self._at(name), 0o700, dir_fd=self._fd)
            except FileExistsError:
                return False
            try:
                if sync:
                    self.sync()
            except OSError:
                self.remove(name)
                raise
            return True

    def remove(self, name: str) -> None:
        """Remove an empty directory; one that cannot be removed stays."""
        with suppress(OSError):
            os.rmdir(self._at(name), dir_fd=self._fd)

    def remove_tree(self, name: str) -> None:
        """Remove a file, or a directory with all that is in it, without following a symlink.

        It is no error where there is none.

        Raises:
            OSError: something of it cannot be removed; the rest may be gone.
        """
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(self.stat(name).st_mode):
                self.unlink(name)
                return
            with self.inside(name) as directory:
                for inner in directory.names():
                    directory.remove_tree(inner)
            with self._naming(name):
                os.rmdir(self._at(name), dir_fd=self._fd)

    def link(self, name: str, target: str) -> None:
        """Make a symlink here.

        Args:
            name: its name.
            target: the text that it holds.
        """
        with self._naming(name):
            os.symlink(target, self._at(name), dir_fd=self._fd)

    def linked(self, name: str) -> str:
        """Return the text that a symlink holds."""
        with self._naming(name):
            return os.readlink(self._at(name), dir_fd=self._fd)

    def replace(self, old: str, new: str) -> None:
        """Rename a file over another one, if there is one, in one step."""
        self.guard()
        with self._naming(new):
            if self._fd is None:  # on Windows rename() does not replace; elsewhere it does
                os.replace(self._at(old), self._at(new))
            else:
                os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def set_aside(self, name: str, suffix: str) -> str:
        """Rename what stands there to a name that is free (`x.suffix`, `x.suffix-2`, ...).

        Returns:
            The new name.
        """
        number = 1
        while True:
            kept = f"{name}.{suffix}" + (f"-{number}" if number > 1 else "")
            if not self.holds(kept):
                self.replace(name, kept)
                self.sync()
                return kept
            number += 1

    def names(self) -> list[str]:
        """List what stands here, in no order."""
        with self._naming(""):
            return os.listdir(self.path if self._fd is None else self._fd)

    def holds(self, name: str) -> bool:
        """Return whether anything stands under the name, a broken symlink included."""
        try:
            self.stat(name)
        except FileNotFoundError:
            return False
        return True

    def stat(self, name: str) -> os.stat_result:
        """Return what the system knows of a file; of a symlink, and not of what it leads to."""
        with self._naming(name):
            return os.stat(self._at(name), dir_fd=self._fd, follow_symlinks=False)

    def set_mode(self, name: str, mode: int) -> None:
        """Set the permissions of a file or directory (`.` is this one); POSIX only."""
        with self._naming(name):
            flags = os.O_RDONLY | _O_NOFOLLOW | _O_NONBLOCK
            fd = os.open(self._at(name), flags, dir_fd=self._fd)
            try:
                os.fchmod(fd, mode)
            finally:
                os.close(fd)

    def touch(self, name: str) -> None:
        """Set a file's time of change to now, by the clock of its file system."""
        with self._naming(name):
            if self._fd is None:
                os.utime(self._at(name))
            else:
                os.utime(name, dir_fd=self._fd)

    def now(self) -> float:
        """Return the time by the clock of the file system, in seconds since the epoch."""
        name = ".now.tmp"
        os.close(self.open(name, os.O_WRONLY | os.O_CREAT))
        try:
            self.touch(name)
            return self.stat(name).st_mtime
        finally:
            self.unlink(name)

    def unlink(self, name: str) -> None:
        """Remove a file; it is no error where there is none."""
        with suppress(FileNotFoundError), self._naming(name):
            os.unlink(self._at(name), dir_fd=self._fd)

    def sync(self) -> None:
        """Make the names in the directory survive a power loss, where the file system can."""
        if self._fd is None:
            return
        with self._naming(""):
            # A descriptor whose fsync has failed would not say so again.
            fd = os.open(".", os.O_RDONLY, dir_fd=self._fd) if self._unsynced else self._fd
            try:
                os.fsync(fd)
            except OSError as exc:
                self._unsynced = True
                if exc.errno not in _NO_SYNC_HERE:
                    raise
                _note_unsynced(self.path, os.fstat(fd).st_dev, exc)
            finally:
                if fd != self._fd:
                    os.close(fd)

    def sync_file(self, name: str) -> None:
        """Make a file's content survive a power loss."""
        fd = self.open(name, os.O_RDONLY if self._fd is not None else os.O_RDWR)
        try:
            with self._naming(name):
                os.fsync(fd)
        finally:
            os.close(fd)

    def read(self, name: str) -> bytes | None:
        """Read a whole file, of a size that one of keisei's own can have.

        Returns:
            Its bytes; ``None`` where there is none.

        Raises:
            OSError: it cannot be read, is no regular file, or is too large.
        """
        try:
            fd = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with self._naming(name), open(fd, "rb") as file:
            text = file.read(LARGEST_READ + 1)
            if len(text) > LARGEST_READ:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return text


def make_directory(path: str, unsynced: list[str] | None = None) -> bool:
    """Make a directory and its missing parents, so that they survive a power loss.

    Args:
        path: the directory.
        unsynced: takes the parents that are to be synced for that; without it, each is synced at
            once.

    Returns:
        Whether the directory itself was made; it stays as it is where it exists.
    """
    parent, name = os.path.split(path)
    if not name:
        return False
    try:
        above = OpenDirectory(parent, follow=True)
    except (FileNotFoundError, NotADirectoryError):  # the topmost that is in the way is named
        make_directory(parent, unsynced)
        above = OpenDirectory(parent, follow=True)
    except PermissionError as unreadable:
        try:
            os.mkdir(path, 0o700)  # one that may be passed through and not read cannot be synced
        except FileExistsError:
            return False
        except OSError:
            raise unreadable from None
        return True
    with above:
        made = above.make(name, sync=unsynced is None)
    if made and unsynced is not None:
        unsynced.append(parent)
    return made


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power loss, where it may be read."""
    with suppress(PermissionError), OpenDirectory(path, follow=True) as directory:
        directory.sync()
