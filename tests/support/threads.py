"""The threads of keisei's own that are at work, and one for what a test may not do on a loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_FOR_LIFE = ("-exit", "-host", "-news")  # these live as long as the program


def still_there() -> list[str]:
    """Name the threads of keisei's that do not end, after some seconds; blocks."""
    give_up = time.monotonic() + 30
    while True:
        names = [thread.name for thread in threading.enumerate()]
        ours = [name for name in names if name.startswith("keisei-")]
        left = [name for name in ours if not name.endswith(_FOR_LIFE)]
        if not left or time.monotonic() > give_up:
            return left
        time.sleep(0.001)


def off_loop(func: Callable[[], T]) -> T:
    """Run a blocking function on a thread, and wait for it, where a loop runs."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(func).result()
