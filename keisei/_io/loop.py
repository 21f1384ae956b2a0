"""The loop that runs here: made ready for anyio, and called from where nothing may wait.

What calls it is a signal handler, or a foreign thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - or asyncio imports it at the first hop
import importlib
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import current_token


async def load_backend() -> None:
    """Import anyio's backend for the loop that runs here, on a thread: it takes 10 ms.

    Programs that begin with ``anyio.run`` have it; those of ``asyncio.run``, ``uvloop.run`` and
    ``trio.run`` would import it on the loop, at anyio's first call there.
    """
    trio = _running_trio()
    backend = f"anyio._backends._{'asyncio' if trio is None else 'trio'}"
    if backend in sys.modules:
        return
    if trio is None:
        hop = asyncio.get_running_loop().run_in_executor
        await hop(None, importlib.import_module, backend)
    else:
        await trio.to_thread.run_sync(importlib.import_module, backend)


def _running_trio() -> Any | None:
    """Return trio's module where a task of trio's runs, ``None`` elsewhere."""
    trio: Any = sys.modules.get("trio")
    lowlevel = getattr(trio, "lowlevel", None)  # another thread may import it just now
    return trio if lowlevel is not None and lowlevel.in_trio_task() else None


def calling_soon(func: Callable[[], object]) -> Callable[[], None]:
    """Return what calls a function in the loop that runs here, and itself never waits.

    Args:
        func: called soon, in the loop; not at all where the loop has ended.
    """
    trio = _running_trio()
    if trio is None:
        soon: Any = asyncio.get_running_loop().call_soon_threadsafe
    else:
        soon = trio.lowlevel.current_trio_token().run_sync_soon

    def call() -> None:
        with suppress(RuntimeError):
            soon(func)

    return call


class LoopHere:
    """The loop that runs where it is made, for other threads.

    Attributes:
        in_c: whether no frame of Python's shows that it waits, as uvloop's.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self.in_c = False
        trio = _running_trio()
        if trio is None:
            self._loop = asyncio.get_running_loop()
            self._soon: Any = self._loop.call_soon_threadsafe
            self.in_c = not isinstance(self._loop, asyncio.BaseEventLoop)
        else:
            self._soon = trio.lowlevel.current_trio_token().run_sync_soon

    @property
    def ended(self) -> bool:
        """Whether it runs no more, as far as it is known: trio's is known when it is called."""
        return self._ended or (self._loop is not None and self._loop.is_closed())

    @property
    def running(self) -> bool:
        """Whether it runs: one of asyncio's may be stopped, and go on later."""
        return not self.ended and (self._loop is None or self._loop.is_running())

    def call_soon(self, func: Callable[[], object]) -> None:
        """Call a function soon, in the loop; not at all where it has ended."""
        try:
            self._soon(func)
        except RuntimeError:
            self._ended = True


def on_loop() -> bool:
    """Return whether a task of a loop runs here: what it calls must not wait."""
    try:
        current_token()
    except RuntimeError:
        return False
    return True


class ThreadEvent:
    """An event that any thread may set, and that tasks of any loop may wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._wakers: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Return whether it has been set."""
        return self._set

    def set(self) -> None:
        """Set it, and wake all who wait; it never blocks, and stays set."""
        with self._lock:
            self._set = True
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    async def wait(self) -> None:
        """Wait until it is set."""
        event = anyio.Event()
        wake = calling_soon(event.set)
        with self._lock:
            if self._set:
                return
            self._wakers.append(wake)
        await event.wait()
