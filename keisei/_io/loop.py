"""The way back into the loop from where nothing may wait: a signal handler, or a foreign thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import current_token


def calling_soon(func: Callable[[], object]) -> Callable[[], None]:
    """Give a way to call a function in the loop that runs now, which itself never waits.

    Args:
        func: called soon, in the loop; not at all where the loop has ended.
    """
    native: Any = current_token().native_token
    soon = (
        native.call_soon_threadsafe
        if isinstance(native, asyncio.AbstractEventLoop)
        else native.run_sync_soon
    )

    def call() -> None:
        with suppress(RuntimeError):
            soon(func)

    return call


class ThreadEvent:
    """An event that any thread may set, and that tasks of any loop may wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._wakers: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Tell whether it has been set."""
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
