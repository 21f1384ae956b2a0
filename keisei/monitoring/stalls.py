"""What held an event loop: the cause of a stall, and the frame to blame, by what was seen."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import FrameType
from typing import Literal, NamedTuple

Cause = Literal[
    "own code", "garbage collection", "another thread with the GIL", "no CPU", "suspended"
]

_MOST = 0.5  # the share of a stall that decides its cause
_LATE = 0.2  # the share of it that a watchdog is late where threads compete for the GIL
_QUEUED = 0.3  # the share of it that is spent asking for the GIL where another has it
_STANDARD = tuple({sysconfig.get_path(key) for key in ("stdlib", "platstdlib")})
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")
_KEISEI = __file__[: -len("monitoring/stalls.py")]
# By which frames the loops themselves, and what has started them, call the program's.
_LOOPS = re.compile(
    r"asyncio[\\/](base_events|runners|events)\.py|trio[\\/]_core[\\/]_run\.py|uvloop[\\/]__init__\.py"
    r"|anyio[\\/]_backends[\\/]_(asyncio|trio)\.py"
)
_LOOP_CALLS = frozenset(
    "AsyncIOBackend.run BaseEventLoop._run_once BaseEventLoop.run_forever "
    "BaseEventLoop.run_until_complete Handle._run Runner.run TrioBackend.run run "
    "unrolled_run".split()
)

BEAT = "Watchdog.beat"


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
        queueing: how much the loop's thread waited for the GIL; ``None`` where nothing says it.
        watchdog_queueing: the same, of the watchdog while it was late.
        watchdog_waiting: how much the watchdog was late for it had no CPU.
        idle: whether the loop had nothing to do when the watchdog came, late.
    """

    length: float
    collecting: float = 0.0
    computing: float = 0.0
    waiting: float | None = None
    process: float = 0.0
    late: float = 0.0
    asleep: float = 0.0
    queueing: float | None = None
    watchdog_queueing: float | None = None
    watchdog_waiting: float = 0.0
    idle: bool = False


def cause_of(seen: Seen) -> Cause:
    """Return what held the loop.

    A thread that waits for the GIL has no CPU and is not ready, as one that sleeps, but wakes at
    each of Python's switch intervals to ask for it. Where that is not counted: the process computes
    then, and the watchdog, which needs the GIL as well, wakes late. Where the watchdog is late, and
    neither asks for the GIL nor computes, the whole process stood still. What kept the watchdog
    from a loop that had nothing to do was not the loop's own code.

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
    if seen.watchdog_queueing is not None and seen.queueing is not None:
        queued = _QUEUED * seen.length
        if seen.late >= _LATE * seen.length and seen.watchdog_queueing >= queued:
            is_other = seen.idle or seen.queueing >= queued
            return "another thread with the GIL" if is_other else "own code"
    elif seen.late >= _LATE * seen.length and others >= most - seen.computing / 2:
        return "another thread with the GIL"
    if seen.idle:
        if seen.watchdog_waiting >= most:
            return "no CPU"
        return "another thread with the GIL" if others >= most else "suspended"
    if seen.late - seen.watchdog_waiting >= most:
        return "suspended" if seen.process < most / 2 else "no CPU"
    return "own code"


def blamed(stack: Sequence[Frame]) -> Frame | None:
    """Return the frame to blame: the innermost one of the program's own code, or of keisei's.

    Args:
        stack: the loop's thread, the innermost frame first.

    Returns:
        The innermost of all where none is the program's; ``None`` where the loop runs nothing: what
        has started it holds nobody up.
    """
    inside = list(takewhile(lambda frame: not _is_loop(frame), stack))
    if any(frame.function == BEAT for frame in inside):
        return None  # the loop has only come to its next beat
    own = (frame for frame in inside if not is_library(frame.file))
    return next(own, inside[0] if inside and not _is_waiting(inside[0]) else None)


def is_library(file: str) -> bool:
    """Return whether a file belongs to Python or to an installed package; keisei's own do not."""
    if file.startswith(_KEISEI):
        return False
    return file.startswith(("<frozen", *_STANDARD)) or _INSTALLED.search(file) is not None


def _is_loop(frame: Frame) -> bool:
    return frame.function in _LOOP_CALLS and _LOOPS.search(frame.file) is not None


def _is_waiting(frame: Frame) -> bool:
    """Return whether a loop waits here for something to do."""
    return frame.function.endswith((".select", ".get_events"))


def waits(frame: FrameType) -> bool:
    """Return whether the innermost frame of a thread is that of a loop that has nothing to do."""
    outer = frame.f_back
    return outer is not None and _is_waiting(_named(frame)) and _is_loop(_named(outer))


def _named(frame: FrameType) -> Frame:
    return Frame(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
