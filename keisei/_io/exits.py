"""The end of a process whose threads may hang."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def exit_at_once(status: int, timeout: float) -> NoReturn:
    """End the process without its threads: one that is in C code then can crash a normal exit.

    Args:
        status: the exit status.
        timeout: how long the functions that are registered for the exit may take, in seconds.
    """
    hooks = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    with suppress(RuntimeError):  # the system has no thread left
        hooks.start()
        hooks.join(timeout)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)
