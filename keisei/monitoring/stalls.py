"""What held an event loop: the cause of a stall, and the frame to blame, by what was seen."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Cause = Literal[
    "own code", "garbage collection", "another thread with the GIL", "no CPU", "suspended"
]

_MOST = 0.5  # the share of a stall that decides its cause
_LATE = 0.2  # the share of it that a watchdog is late where threads compete for the GIL
_STANDARD = tuple({sysconfig.get_path(key) for key in ("stdlib", "platstdlib")})
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")


class Frame(NamedTuple):
    """A frame of the loop's thread.

    Attributes:
        file: its file.
        line: the line that it was at.
        function: its qualified name.
    """

    file: str
    line: int
    function: str


@dataclass(frozen=True)
class Seen:
    """What was seen of a stall; all times in seconds.

    Attributes:
        length: how long the loop did not answer.
        collecting: how much of that the collector of garbage took in the loop's thread.
        computing: how much the loop's thread had a CPU.
        waiting: how much it was ready, and had none; ``None`` where the system does not say it.
        process: how much all threads of the process together had a CPU.
        late: how much later than it should have the watchdog woke.
        asleep: how much the machine was suspended.
    """

    length: float
    collecting: float = 0.0
    computing: float = 0.0
    waiting: float | None = None
    process: float = 0.0
    late: float = 0.0
    asleep: float = 0.0


def cause_of(seen: Seen) -> Cause:
    """Return what held the loop.

    A thread that waits for the GIL has no CPU and is not ready, as one that sleeps: but then the
    process computes, and the watchdog, which needs the GIL as well, wakes late. Where nobody
    computes and the watchdog is late all the same, the whole process stood still.

    Args:
        seen: what was seen of the stall.
    """
    most = _MOST * seen.length
    if seen.asleep >= most:
        return "suspended"
    if seen.collecting >= most:
        return "garbage collection"
    if seen.computing >= most:
        return "own code"
    if seen.waiting is not None and seen.waiting >= most:
        return "no CPU"
    others = seen.process - seen.computing
    if seen.late >= _LATE * seen.length and others >= most - seen.computing / 2:
        return "another thread with the GIL"
    if seen.late >= most:
        return "suspended" if seen.process < most / 2 else "no CPU"
    return "own code"


def blamed(stack: Sequence[Frame]) -> Frame | None:
    """Return the frame to blame: the innermost one of the program's own code.

    Args:
        stack: the loop's thread, the innermost frame first.

    Returns:
        The innermost of all where none is the program's; ``None`` where the stack is empty.
    """
    own = (frame for frame in stack if not is_library(frame.file))
    return next(own, stack[0] if stack else None)


def is_library(file: str) -> bool:
    """Return whether a file belongs to Python or to an installed package."""
    return file.startswith(("<frozen", *_STANDARD)) or _INSTALLED.search(file) is not None
