"""How keisei touches the disk: blocking pieces to be put together, and one hop to run them.

A sequence of small operations is a plain function, and costs one hop to a thread (`in_thread`).
There is one way to write a file that must be whole (`write_atomic`) and one to add to a log
(`append`). Everything is opened relative to an open directory, no symlink is followed at its last
step, files get mode 0600 and directories 0700. Where there are no directory descriptors (Windows)
paths are joined instead, and no directory is synced: the file system orders the rename.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

import aiofiles.os
import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar, checkpoint_if_cancelled, current_token

from keisei._io.offload import Call, patiently

P = ParamSpec("P")
T = TypeVar("T")

# More threads make no set-up faster (the disk is the bound) and each stall of the loop longer:
# 1,000 set-ups at once stalled it for 1.5 ms on 4 threads and for 19 ms on 40.
THREADS = 4
_turns: RunVar[anyio.Semaphore] = RunVar("keisei_turns")

_HAS_DIR_FD = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd
_O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_O_BINARY = getattr(os, "O_BINARY", 0)
_O_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
FILE_TIMEOUT = 60.0


async def in_thread(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function of file operations when it is the caller's turn; see `hop`."""
    async with turn():
        return await hop(func, *args, **kwargs)


async def hop(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function of file operations on a thread: to its end, or not at all.

    On asyncio and uvloop the hop is aiofiles', on trio (which aiofiles cannot serve) anyio's. A
    cancelled caller waits until a function that has begun is done; what that has done, the
    function itself has to note. One that has not begun never begins.

    Args:
        func: the function; the rest are its arguments.

    Raises:
        TimeoutError: the file system has hung for 60 seconds; the function may still go on.
    """
    call = Call(partial(func, *args, **kwargs))
    try:
        with anyio.move_on_after(FILE_TIMEOUT):
            on_asyncio = isinstance(current_token().native_token, asyncio.AbstractEventLoop)
            to_thread = partial(anyio.to_thread.run_sync, abandon_on_cancel=True)
            await (aiofiles.os.wrap(call.run)() if on_asyncio else to_thread(call.run))
        if not call.ended.is_set():  # else the loop may have been held past the deadline
            raise TimeoutError(f"the file system has not answered for {FILE_TIMEOUT:g} s")
        await checkpoint_if_cancelled()  # one that came as the function ended
        return call.outcome.result()
    except anyio.get_cancelled_exc_class():
        if call.give_up():
            with suppress(TimeoutError):
                await patiently(call.ended.wait, FILE_TIMEOUT)
        raise
    finally:
        call.give_up()


def turn() -> anyio.Semaphore:
    """Return the loop's gate for file work, so that a crowd does not compete with the loop.

    Taken before anything is prepared, it also keeps a thousand sessions that come at the same
    moment from holding the loop with their preparations.
    """
    try:
        return _turns.get()
    except LookupError:
        gate = anyio.Semaphore(THREADS, fast_acquire=True)
        _turns.set(gate)
        return gate


class _Naming:
    """Has an error of the system name the whole path of a file."""

    def __init__(self, directory: str, name: str) -> None:
        self._at = directory, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: object, traceback: object) -> None:
        if isinstance(exc, OSError):
            exc.filename, exc.filename2 = os.path.join(*self._at), None


class OpenDirectory:
    """A directory held open, in which files are named by a single component.

    An error of the system names the whole path, although the file is opened relative to here.

    Args:
        path: an existing directory.
        follow: whether its last component may be a symlink.

    Raises:
        OSError: it is no directory, or a symlink.
    """

    def __init__(self, path: str, *, follow: bool = False) -> None:
        self.path = path
        self._fd: int | None = None
        if _HAS_DIR_FD:
            flags = os.O_RDONLY | os.O_DIRECTORY | (0 if follow else _O_NOFOLLOW)
            self._fd = os.open(path, flags)
        elif (os.path.islink(path) and not follow) or not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def __enter__(self) -> OpenDirectory:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd is not None:
            os.close(self._fd)

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
            if flags & os.O_EXCL:  # made here and now
                return fd
            try:
                mode = os.fstat(fd).st_mode
                if stat.S_ISDIR(mode):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                if not stat.S_ISREG(mode):
                    raise OSError(errno.EINVAL, "no regular file stands there")
            except BaseException:
                os.close(fd)
                raise
            return fd

    def make(self, name: str) -> bool:
        """Make a directory here that survives a power loss.

        Returns:
            Whether it was made; what stands there stays as it is.
        """
        with self._naming(name):
            try:
                os.mkdir(self._at(name), 0o700, dir_fd=self._fd)
            except FileExistsError:
                return False
            try:
                self.sync()
            except OSError:
                self.remove(name)
                raise
            return True

    def remove(self, name: str) -> None:
        """Remove an empty directory; one that cannot be removed stays."""
        with suppress(OSError):
            os.rmdir(self._at(name), dir_fd=self._fd)

    def replace(self, old: str, new: str) -> None:
        """Rename a file over another one, if there is one, in one step."""
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

    def unlink(self, name: str) -> None:
        """Remove a file; it is no error where there is none."""
        with suppress(FileNotFoundError), self._naming(name):
            os.unlink(self._at(name), dir_fd=self._fd)

    def sync(self) -> None:
        """Make the names in the directory survive a power loss."""
        if self._fd is not None:
            with self._naming(""):
                os.fsync(self._fd)

    def read(self, name: str) -> bytes | None:
        """Read a whole file; ``None`` where there is none."""
        try:
            fd = self.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with self._naming(name), open(fd, "rb") as file:
            return file.read()


def make_directory(path: str) -> bool:
    """Make a directory and its missing parents, so that they survive a power loss.

    Returns:
        Whether the directory itself was made; it stays as it is where it exists.
    """
    parent, name = os.path.split(path)
    if not name:
        return False
    try:
        above = OpenDirectory(parent, follow=True)
    except (FileNotFoundError, NotADirectoryError):  # the topmost that is in the way is named
        make_directory(parent)
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
        return above.make(name)


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power loss, where it may be read."""
    with suppress(PermissionError), OpenDirectory(path, follow=True) as directory:
        directory.sync()


def write_atomic(directory: OpenDirectory, name: str, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that after any crash it is whole: the old text, or the new one.

    A temporary file beside it, fsync, rename, fsync of the directory. A failed fsync is not tried
    again: the kernel may have dropped the pages (https://lwn.net/Articles/752063/).

    Args:
        directory: where the file lives.
        name: its name there.
        data: all of its bytes.
        sync: whether it has to survive a loss of power, too; without, an old one may come back,
            or an empty one.

    Raises:
        OSError: the old file is as it was and the temporary one is gone, unless the last fsync is
            what failed: then the new file stands there, whole, and may not survive a power loss.
    """
    temporary = f".{name}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        try:
            fd = directory.open(temporary, flags)
        except FileExistsError:  # a writer that died has left it
            directory.unlink(temporary)
            fd = directory.open(temporary, flags)
        try:
            _write_all(fd, data)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        directory.replace(temporary, name)
    except BaseException as exc:
        with suppress(OSError):
            directory.unlink(temporary)
        if isinstance(exc, OSError):
            exc.filename = os.path.join(directory.path, name)
        raise
    if sync:
        directory.sync()


def append(directory: OpenDirectory, name: str, data: bytes) -> bool:
    """Add whole lines to the end of a file so that they survive a power loss.

    A torn last line, which a crash can leave, is closed first: what follows stands on a line of
    its own, and nothing before it is lost.

    Args:
        directory: where the file lives.
        name: its name there; it is made where it is missing.
        data: the lines, each with its newline; none to close a torn line only.

    Returns:
        Whether a torn line was closed.
    """
    fd = directory.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(fd).st_size
        torn = False
        if size:
            os.lseek(fd, size - 1, os.SEEK_SET)
            torn = os.read(fd, 1) != b"\n"
        if torn:
            data = b"\n" + data
        if data:
            _write_all(fd, data)
            os.fsync(fd)
        return torn
    except OSError as exc:
        exc.filename = os.path.join(directory.path, name)
        raise
    finally:
        os.close(fd)


def append_whole(directory: OpenDirectory, name: str, data: bytes) -> None:
    """Do what `append` does; where that fails, what it has left is cut off again.

    So the lines can be added once more, and do not stand there twice. Nothing is cut where
    somebody else has added to the file meanwhile.

    Args:
        directory: where the file lives.
        name: its name there; it is made where it is missing.
        data: the lines, each with its newline.
    """
    fd = directory.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(fd).st_size
        try:
            append(directory, name, data)
        except OSError:
            with suppress(OSError):
                os.lseek(fd, size, os.SEEK_SET)
                left = os.read(fd, len(data) + 2)
                if data.startswith(left) or (b"\n" + data).startswith(left):
                    os.ftruncate(fd, size)
            raise
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
