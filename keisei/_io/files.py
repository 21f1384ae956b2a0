"""How keisei touches the disk: blocking pieces to be put together, and one hop to run them.

A sequence of small operations is a plain function, and costs one hop to a thread (`in_thread`).
There is one way to write a file that must be whole (`write_atomic`) and one to add to a log
(`append`); both are relative to an open directory (see `directories`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import ParamSpec, TypeVar

import aiofiles.os
import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar, checkpoint_if_cancelled, current_token

from keisei._io.directories import OpenDirectory as OpenDirectory
from keisei._io.directories import make_directory as make_directory
from keisei._io.directories import sync_directory as sync_directory
from keisei._io.offload import Call, Outcome, patiently

P = ParamSpec("P")
T = TypeVar("T")

# More threads make no set-up faster (the disk is the bound) and each stall of the loop longer:
# 1,000 set-ups at once stalled it for 1.5 ms on 4 threads and for 19 ms on 40.
THREADS = 4
_turns: RunVar[anyio.Semaphore] = RunVar("keisei_turns")

FILE_TIMEOUT = 60.0
_PART = 1 << 20  # bytes that are read at once


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


def write_atomic(
    directory: OpenDirectory, name: str, data: bytes, *, sync: bool = True, sync_name: bool = True
) -> None:
    """Write a file so that after any crash it is whole: the old text, or the new one.

    A temporary file beside it, fsync, rename, fsync of the directory. A failed fsync is not tried
    again: the kernel may have dropped the pages (https://lwn.net/Articles/752063/).

    Args:
        directory: where the file lives.
        name: its name there.
        data: all of its bytes.
        sync: whether it has to survive a loss of power, too; without, an old one may come back,
            or an empty one.
        sync_name: whether the directory is synced, too; without, it is to be synced for that.

    Raises:
        OSError: the old file is as it was and the temporary one is gone, unless the last fsync is
            what failed: then the new file stands there, whole, and may not survive a power loss.
    """
    try:
        with replacing(directory, name, sync=sync, sync_name=sync_name) as fd:
            write_all(fd, data)
    except OSError as exc:
        exc.filename = os.path.join(directory.path, name)
        raise


@contextmanager
def replacing(
    directory: OpenDirectory, name: str, *, sync: bool = True, sync_name: bool = True
) -> Iterator[int]:
    """Yield a file to write to, which takes the place of another one once it is whole.

    Args:
        directory: where the file lives.
        name: its name there.
        sync: as for `write_atomic`.
        sync_name: as for `write_atomic`.
    """
    temporary = f".{name}{directory.mark}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        try:
            fd = directory.open(temporary, flags)
        except FileExistsError:  # a writer that died has left it
            directory.unlink(temporary)
            fd = directory.open(temporary, flags)
        try:
            yield fd
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        directory.replace(temporary, name)
    except BaseException:
        with suppress(OSError):
            directory.unlink(temporary)
        raise
    if sync and sync_name:
        directory.sync()


def parts(directory: OpenDirectory, name: str) -> Iterator[bytes]:
    """Read a file part by part, however large it is.

    Args:
        directory: where the file lives.
        name: its name there.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    fd = directory.open(name, os.O_RDONLY)
    try:
        while part := os.read(fd, _PART):
            yield part
    except OSError as exc:
        exc.filename = os.path.join(directory.path, name)
        raise
    finally:
        os.close(fd)


def append(directory: OpenDirectory, name: str, data: bytes, *, sync: bool = True) -> bool:
    """Add whole lines to the end of a file so that they survive a power loss.

    A torn last line, which a crash can leave, is closed first: what follows stands on a line of
    its own, and nothing before it is lost.

    Args:
        directory: where the file lives.
        name: its name there; it is made where it is missing.
        data: the lines, each with its newline; none to close a torn line only.
        sync: whether the file is synced; without, it is to be synced to survive a power loss.

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
            write_all(fd, data)
            if sync:
                os.fsync(fd)
        return torn
    except OSError as exc:
        exc.filename = os.path.join(directory.path, name)
        raise
    finally:
        os.close(fd)


def sync_file(directory: OpenDirectory, name: str) -> None:
    """Make what was written to a file survive a power loss."""
    fd = directory.open(name, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as exc:
        exc.filename = os.path.join(directory.path, name)
        raise
    finally:
        os.close(fd)


def at_once(calls: Sequence[Callable[[], object]]) -> None:
    """Make blocking calls side by side, and wait for all of them.

    Each has a thread of its own, but for the first, and those for which the system has none left.

    Raises:
        Exception: the error of the first call, in their order, that has failed.
    """
    outcomes, threads = [Outcome[object]() for _ in calls], []
    for call, outcome in list(zip(calls, outcomes, strict=True))[1:]:
        thread = threading.Thread(target=outcome.run, args=(call,), daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:
            outcome.run(call)
    for call, outcome in zip(calls[:1], outcomes[:1], strict=True):
        outcome.run(call)
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        outcome.result()


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


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes to an open file."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
