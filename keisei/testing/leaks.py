"""What a test has left behind: threads, descriptors on its own files, and asyncio's tasks."""

from __future__ import annotations

import asyncio
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from types import FrameType
from typing import Any

import anyio

import keisei

KINDS = ("descriptors", "sessions", "tasks", "threads")

_GRACE_S = 2.0  # a thread that was told to end needs a moment
_POLL_S = 0.01
_STDLIB = sysconfig.get_path("stdlib") + os.sep
_SITES = tuple(os.path.join(_STDLIB, name) for name in ("site-packages", "dist-packages"))
# Pools that outlive a test by design: they end idle threads by themselves, or with their loop.
_POOLS = ("asyncio_", "AnyIO worker thread", "Trio thread")
_POOL_FILE = os.path.join("trio", "_core", "_thread_cache.py")
_OWN = tuple(os.path.dirname(str(package.__file__)) + os.sep for package in (keisei, anyio))
_HELPERS = os.path.dirname(__file__) + os.sep  # they stand for the user's own code
_DESCRIPTORS = "/proc/self/fd"


class Leaks:
    """Knows what there was when it was made, and returns what has come since and stayed.

    Args:
        directory: the directory of the test; only descriptors of files below it count.
        ignored: the kinds of `KINDS` that do not count.
    """

    def __init__(self, directory: str, ignored: Collection[str] = ()) -> None:
        self._directory = os.path.realpath(directory) + os.sep
        self._ignored = frozenset(ignored)
        self._threads = frozenset(threading.enumerate())
        self._noted: list[str] = []

    async def watch(self, test: Callable[[], Awaitable[Any]]) -> Any:
        """Run an async test, and note the tasks that it leaves behind on asyncio's loop.

        On trio there is nothing to note: a task ends before its nursery does.

        Args:
            test: the test.

        Returns:
            What the test returns.
        """
        __tracebackhide__ = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return await test()
        before = asyncio.all_tasks(loop)
        result = await test()
        if left := asyncio.all_tasks(loop) - before:
            _, left = await asyncio.wait(left, timeout=_GRACE_S / 10)
            self.note("tasks", sorted(map(_describe_task, left)))
        return result

    def note(self, kind: str, sentences: Iterable[str]) -> None:
        """Note what somebody else has found to be left, unless its kind does not count.

        Args:
            kind: one of `KINDS`.
            sentences: a sentence each.
        """
        if kind not in self._ignored:
            self._noted += sentences

    def left(self) -> list[str]:
        """Return what is left, a sentence each; waits a moment for what is about to end."""
        give_up = time.monotonic() + _GRACE_S
        while True:
            threads = [] if "threads" in self._ignored else self._left_threads()
            descriptors = [] if "descriptors" in self._ignored else self._left_descriptors()
            if not (threads or descriptors) or time.monotonic() > give_up:
                return [*self._noted, *threads, *descriptors]
            time.sleep(_POLL_S)

    def _left_threads(self) -> list[str]:
        new = set(threading.enumerate()) - self._threads
        if not new:
            return []
        frames = sys._current_frames()
        told = [_describe_thread(thread, frames.get(thread.ident or 0)) for thread in new]
        return sorted(text for text in told if text)

    def _left_descriptors(self) -> list[str]:
        """Return the open files below the directory; none where the system does not list them."""
        found = []
        try:
            numbers = os.listdir(_DESCRIPTORS)
        except OSError:
            return []
        for number in numbers:
            try:
                path = os.readlink(f"{_DESCRIPTORS}/{number}")
            except OSError:  # the listing's own
                continue
            if path.startswith(self._directory):
                found.append(f"descriptor {number} is open on {path}")
        return sorted(found)


def _describe_thread(thread: threading.Thread, frame: FrameType | None) -> str | None:
    """Return a sentence on a thread; ``None`` for one of a pool, or of keisei's that waits."""
    if frame is None or not thread.is_alive() or isinstance(thread, threading._DummyThread):
        return None
    at = _innermost(frame)
    file = "" if at is None else at.f_code.co_filename
    if file.endswith(_POOL_FILE) or (at is None and thread.name.startswith(_POOLS)):
        return None
    if file.startswith(_OWN) and not file.startswith(_HELPERS):
        return None
    return f"thread {thread.name!r} still runs{'' if at is None else f' ({_place(at)})'}"


def _innermost(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame that is not of the standard library; ``None`` where all are."""
    while frame is not None:
        file = frame.f_code.co_filename
        standard = file.startswith((_STDLIB, "<frozen")) and not file.startswith(_SITES)
        if not standard:
            return frame
        frame = frame.f_back
    return None


def _describe_task(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    coroutine = getattr(task.get_coro(), "__qualname__", "?")
    where = f" ({_place(stack[-1])})" if stack else ""
    return f"task {task.get_name()!r} still runs {coroutine}{where}"


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"
