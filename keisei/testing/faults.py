"""Faults for tests of training code: a full disk, a slow one, a tracker that hangs, a kill."""

from __future__ import annotations

import errno
import importlib
import io
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Literal, Self

from keisei.run.status import FinalStatus
from keisei.testing.memory import MemoryRun, MemoryTracker
from keisei.trackers.base import Record, RunInfo

Method = Literal["start", "send", "finish"]

# The modules below `keisei` that write to a run's directory.
_WRITERS = (
    *("_io.files", "_io.directories", "_io.held", "_io.locks"),
    *("checkpoints.opening", "checkpoints.staging", "checkpoints.streams", "run.claim"),
)
_POLL_S = 0.01
_LONGEST_HANG_S = 600.0


class Faults:
    """What goes wrong in a test; at its end, everything that hangs is let go.

    Use it as ``with Faults() as faults:``; the fixture `keisei_faults` is one.
    """

    def __init__(self) -> None:
        self._at_end = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._at_end.close()

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fail each write of keisei's in this process with ENOSPC, within a `with` block.

        What a session has logged meanwhile waits in memory, and is written when there is space
        again. What your own code writes is not affected.
        """

        def fail() -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with _before_writes(fail):
            yield

    @contextmanager
    def slow_disk(self, seconds: float = 0.1) -> Iterator[None]:
        """Slow down each write and each sync of keisei's in this process, within a `with` block.

        Args:
            seconds: how much longer.
        """
        with _before_writes(lambda: time.sleep(seconds), syncs=True):
            yield

    def hung_tracker(self, at: Method = "send", start_timeout: float = 0.2) -> HungTracker:
        """Return a tracker that hangs: give it to ``session.setup_remote_logging``.

        It hangs until ``release()`` is called, and at the longest until the test's end.

        Args:
            at: where it hangs: in `start`, in the first `send`, or in `finish`.
            start_timeout: the longest that a session waits for its start, in seconds.

        Raises:
            ValueError: a tracker has no such method.
        """
        if at not in ("start", "send", "finish"):
            raise ValueError(f"a tracker hangs at 'start', 'send' or 'finish', not at {at!r}")
        tracker = HungTracker(at, start_timeout)
        self._at_end.callback(tracker.release)
        return tracker

    def kill(
        self,
        function: Callable[..., object],
        *args: object,
        until: Callable[[], object],
        timeout: float = 60.0,
    ) -> None:
        """Run a function in a process of its own, and kill it (SIGKILL) once something is true.

        Args:
            function: a function of a module, so that another process can import it.
            args: what it is called with: picklable.
            until: looked at every 10 ms; an `OSError`, as for a file that is not there yet, counts
                as false.
            timeout: how long it may take until then, in seconds.

        Raises:
            RuntimeError: the process has ended before.
            TimeoutError: it did not become true in time; the process was killed all the same.
        """
        process = multiprocessing.get_context("spawn").Process(target=function, args=args)
        process.start()
        give_up = time.monotonic() + timeout
        name = getattr(function, "__qualname__", repr(function))
        try:
            while not _holds(until):
                if not process.is_alive():
                    status = process.exitcode
                    raise RuntimeError(f"{name} ended before it was killed, with status {status}")
                if time.monotonic() > give_up:
                    raise TimeoutError(
                        f"{name} was killed after {timeout:g} s: until() stayed false"
                    )
                time.sleep(_POLL_S)
        finally:
            process.kill()
            process.join()
            process.close()


class HungTracker(MemoryTracker):
    """A `MemoryTracker` one of whose methods hangs until it is released.

    Args:
        at: the method.
        start_timeout: the longest that a session waits for its start, in seconds.

    Attributes:
        hangs: set from the moment at which it hangs.
    """

    def __init__(self, at: Method, start_timeout: float) -> None:
        super().__init__("hung", start_timeout)
        self._at, self._released = at, threading.Event()
        self.hangs = threading.Event()

    def start(self, run: RunInfo) -> MemoryRun:
        """Start a run, or hang first."""
        self._pass("start")
        self.runs.append(started := _HungRun(run, passing=self._pass))
        return started

    def release(self) -> None:
        """Release what hangs; it hangs no more."""
        self._released.set()

    def _pass(self, method: Method) -> None:
        if method == self._at and not self._released.is_set():
            self.hangs.set()
            self._released.wait(_LONGEST_HANG_S)


class _HungRun(MemoryRun):
    def __init__(self, info: RunInfo, passing: Callable[[Method], None]) -> None:
        super().__init__(info)
        self._passing = passing

    def send(self, records: Sequence[Record]) -> None:
        self._passing("send")
        super().send(records)

    def finish(self, status: FinalStatus) -> None:
        self._passing("finish")
        super().finish(status)


def _holds(until: Callable[[], object]) -> bool:
    try:
        return bool(until())
    except OSError:
        return False


@contextmanager
def _before_writes(before: Callable[[], None], *, syncs: bool = False) -> Iterator[None]:
    """Do something before each write of keisei's: it may take its time, or raise."""
    modules = [importlib.import_module(f"keisei.{name}") for name in _WRITERS]
    disk: Any = _Disk(before, syncs)
    streams: Any = importlib.import_module("keisei.checkpoints.streams")
    real_io = streams.io
    real = [(module, module.os) for module in modules]
    try:
        for module in modules:
            module.os = disk  # type: ignore[attr-defined]
        streams.io = _Io(before)
        yield
    finally:
        streams.io = real_io
        for module, original in real:
            module.os = original  # type: ignore[attr-defined]


class _Disk:
    """What stands in for `os` where keisei writes.

    Args:
        before: called before each write.
        syncs: whether it is called before each sync too.
    """

    def __init__(self, before: Callable[[], None], syncs: bool) -> None:
        self._before = before
        self._before_sync = before if syncs else lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write to a file."""
        self._before()
        return os.write(fd, data)

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        """Make a directory."""
        self._before()
        os.mkdir(path, mode, dir_fd=dir_fd)

    def fsync(self, fd: int) -> None:
        """Sync a file."""
        self._before_sync()
        os.fsync(fd)


class _Io:
    """What stands in for `io` where checkpoints are written.

    Args:
        before: called before each write.
    """

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(io, name)

    def FileIO(self, fd: int, mode: str) -> io.FileIO:
        """Open a descriptor as a file."""
        return _File(self._before, fd, mode)


class _File(io.FileIO):
    def __init__(self, before: Callable[[], None], fd: int, mode: str) -> None:
        super().__init__(fd, mode)
        self._before = before

    def write(self, data: Any) -> int:
        self._before()
        return super().write(data)
