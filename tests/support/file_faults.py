"""A stand-in for `os` where keisei touches the disk: it records every call, and fails on demand.

It takes the place of `os` (and of `open` and `fcntl`) in `keisei._io.files`, of `os` in
`keisei.run.claim`, and of `os` and `io` where checkpoints touch files. Each call that touches a
file is recorded with its outcome. What may happen to it is what happens on real disks: the n-th
call of a kind fails once or for ever, a write writes only half, or the process dies just before a
call.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import keisei._io.directories
import keisei._io.files
import keisei._io.held
import keisei._io.locks
import keisei.checkpoints.opening
import keisei.checkpoints.staging
import keisei.checkpoints.streams
import keisei.run.claim

T = TypeVar("T")

ANY = "any"


@dataclass
class Call:
    """One call that touched a file.

    Attributes:
        kind: the function's name.
        path: the file, in full, also where the call names it by a descriptor.
        fd: the descriptor that it names the file by, or that it opened.
        target: the new name in full, of a rename.
        size: how many bytes a write has written.
        errno: why it failed, or 0.
        injected: whether the failure was an injected one.
    """

    kind: str
    path: str
    fd: int | None = None
    dir_fd: int | None = None
    flags: int = 0
    mode: int = 0
    target: str = ""
    size: int = 0
    errno: int = 0
    injected: bool = False


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        kind: the kind of call that fails; `ANY` for all of them.
        number: which call of that kind, from 1.
        errno: the error.
        forever: whether all later calls of the kind fail too.
        short: the call (a write) writes only half of its bytes; the next one fails.
    """

    kind: str
    number: int
    errno: int
    forever: bool = False
    short: bool = False

    def hits(self, kind: str, count: int) -> bool:
        """Check whether the `count`-th call of a kind fails."""
        first = self.number + self.short
        return self.kind in (kind, ANY) and (
            count == first or (self.forever and count > first)  # once, or from then on
        )


class FileFaults:
    """The stand-in.

    Args:
        fault: what goes wrong, if anything.
        die_before: kills the process just before this call (from 1, of whatever kind).
    """

    def __init__(self, fault: Fault | None = None, *, die_before: int | None = None) -> None:
        self.calls: list[Call] = []
        self._fault = fault
        self._die_before = die_before
        self._counts: Counter[str] = Counter()
        self._names: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        """Whatever touches no file is `os`'s own."""
        return getattr(os, name)

    def install(self, put: Callable[[object, str, object], None] = setattr) -> None:
        """Take the place of the real thing, for good, or for as long as what `put` does lasts."""
        touch, checkpoints = keisei._io, keisei.checkpoints
        for module in (
            touch.files,
            touch.directories,
            touch.held,
            touch.locks,
            checkpoints.opening,
            checkpoints.staging,
            checkpoints.streams,
            keisei.run.claim,
        ):
            put(module, "os", self)
        put(touch.directories, "open", partial(_File, self))
        put(touch.locks, "fcntl", _Locks(self))
        put(checkpoints.streams, "io", _Io(self))

    @property
    def injected(self) -> list[Call]:
        """The calls that an injected error hit."""
        return [call for call in self.calls if call.injected]

    def _path(self, path: str, dir_fd: int | None) -> str:
        if dir_fd is None:
            return path
        return os.path.join(self._names.get(dir_fd, "(opened before)"), path)

    def _do(self, call: Call, action: Callable[[], T], given: str | None = None) -> T:
        self.calls.append(call)
        if len(self.calls) == self._die_before:
            os.kill(os.getpid(), signal.SIGKILL)
        self._counts[call.kind] += 1
        self._counts[ANY] += 1
        fault = self._fault
        try:
            if fault is not None and fault.hits(
                call.kind, self._counts[ANY if fault.kind == ANY else call.kind]
            ):
                call.injected = True
                if call.kind == "close":
                    action()  # a close that fails has closed all the same
                raise OSError(fault.errno, os.strerror(fault.errno), given)
            return action()
        except OSError as exc:
            call.errno = exc.errno or 0
            raise

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """Open a file, and remember what its descriptor stands for."""
        full = self._path(path, dir_fd)
        call = Call("open", full, dir_fd=dir_fd, flags=flags, mode=mode)
        fd = self._do(call, lambda: os.open(path, flags, mode, dir_fd=dir_fd), path)
        self._names[fd] = full
        call.fd = fd
        return fd

    def _by_fd(self, kind: str, fd: int, action: Callable[[], T]) -> T:
        return self._do(Call(kind, self._names.get(fd, "?"), fd=fd), action)

    def close(self, fd: int) -> None:
        """Close a descriptor; one whose close fails is closed too."""
        self._by_fd("close", fd, lambda: os.close(fd))

    def fsync(self, fd: int) -> None:
        """Sync a file."""
        self._by_fd("fsync", fd, lambda: os.fsync(fd))

    def fstat(self, fd: int) -> os.stat_result:
        """Look at a file."""
        return self._by_fd("fstat", fd, lambda: os.fstat(fd))

    def lseek(self, fd: int, position: int, whence: int) -> int:
        """Go to a place in a file."""
        return self._by_fd("lseek", fd, lambda: os.lseek(fd, position, whence))

    def read(self, fd: int, count: int) -> bytes:
        """Read from a file."""
        return self._by_fd("read", fd, lambda: os.read(fd, count))

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write to a file, or only half of it."""
        call = Call("write", self._names.get(fd, "?"), fd=fd)
        fault = self._fault
        if fault is not None and fault.short and self._counts["write"] + 1 == fault.number:
            data = memoryview(data)[: max(1, len(data) // 2)]
        call.size = self._do(call, lambda: os.write(fd, data))
        return call.size

    def rename(
        self,
        old: str,
        new: str,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        """Rename a file."""
        target = self._path(new, dst_dir_fd)
        call = Call("rename", self._path(old, src_dir_fd), dir_fd=src_dir_fd, target=target)
        self._do(
            call, lambda: os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd), old
        )

    def replace(
        self,
        old: str,
        new: str,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        """Rename a file over another one."""
        target = self._path(new, dst_dir_fd)
        call = Call("replace", self._path(old, src_dir_fd), dir_fd=src_dir_fd, target=target)
        self._do(
            call, lambda: os.replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd), old
        )

    def _by_path(
        self, kind: str, path: str, dir_fd: int | None, action: Callable[[], None]
    ) -> None:
        self._do(Call(kind, self._path(path, dir_fd), dir_fd=dir_fd), action, path)

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        """Make a directory."""
        self._by_path("mkdir", path, dir_fd, lambda: os.mkdir(path, mode, dir_fd=dir_fd))

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        """Remove a directory."""
        self._by_path("rmdir", path, dir_fd, lambda: os.rmdir(path, dir_fd=dir_fd))

    def symlink(self, target: str, path: str, *, dir_fd: int | None = None) -> None:
        """Make a symlink."""
        self._by_path("symlink", path, dir_fd, lambda: os.symlink(target, path, dir_fd=dir_fd))

    def fchmod(self, fd: int, mode: int) -> None:
        """Set a file's permissions."""
        self._by_fd("fchmod", fd, lambda: os.fchmod(fd, mode))

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        """Remove a file."""
        self._by_path("unlink", path, dir_fd, lambda: os.unlink(path, dir_fd=dir_fd))


class _File:
    """What stands in for `open(fd, "rb")`: a whole file, read by recorded calls."""

    def __init__(self, faults: FileFaults, fd: int, mode: str, closefd: bool = True) -> None:
        assert mode == "rb"
        self._faults = faults
        self._fd = fd
        self._closefd = closefd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._closefd:
            self._faults.close(self._fd)

    def read(self, count: int) -> bytes:
        """Read so many bytes, or to the file's end."""
        data = b""
        while part := self._faults.read(self._fd, min(65536, count - len(data))):
            data += part
        return data


class _Io:
    """What stands in for `io`: its files are written and read by recorded calls."""

    def __init__(self, faults: FileFaults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        """Whatever touches no file is `io`'s own."""
        return getattr(io, name)

    def FileIO(self, fd: int, mode: str) -> io.FileIO:
        """Open a descriptor as a file."""
        return _FileIO(self._faults, fd, mode)


class _FileIO(io.FileIO):
    def __init__(self, faults: FileFaults, fd: int, mode: str) -> None:
        super().__init__(fd, mode)
        self._faults = faults

    def write(self, data: Any) -> int:
        return self._faults.write(self.fileno(), data)

    def readinto(self, into: Any) -> int:
        return self._faults._by_fd("read", self.fileno(), lambda: io.FileIO.readinto(self, into))

    def close(self) -> None:
        if not self.closed:
            self._faults._by_fd("close", self.fileno(), lambda: io.FileIO.close(self))


class _Locks:
    """What stands in for `fcntl`."""

    def __init__(self, faults: FileFaults) -> None:
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        """Whatever is no lock is `fcntl`'s own."""
        import fcntl

        return getattr(fcntl, name)

    def flock(self, fd: int, operation: int) -> None:
        """Take or give back a file's lock."""
        if sys.platform != "win32":
            import fcntl

            self._faults._by_fd("flock", fd, lambda: fcntl.flock(fd, operation))


@contextmanager
def fast_place(otherwise: Path) -> Iterator[Path]:
    """Return a directory on a file system in memory where there is one: an fsync costs nothing."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(
        prefix="keisei-", dir=memory if usable else otherwise
    ) as place:
        yield Path(place)
