"""Runs something in a forked child."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable


def in_child(work: Callable[[], object]) -> str:
    """Run something in a forked child; give the text of what it returns or raises."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, on 3.12+
        pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            try:
                said = f"returned {work()}"
            except BaseException as exc:
                said = f"{type(exc).__name__}: {exc}"
            os.write(writing, said.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said
