"""The way back into the loop from where nothing may wait: a signal handler, or a foreign thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

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
