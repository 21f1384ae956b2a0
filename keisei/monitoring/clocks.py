"""The clocks of a thread that go on while it does not answer, and while it waits for the GIL."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import NamedTuple

try:
    import resource

    resource.RUSAGE_THREAD  # noqa: B018 - of Linux and FreeBSD
except (ImportError, AttributeError):
    resource = None  # type: ignore[assignment]

_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Reading(NamedTuple):
    """What the clocks of a thread say at one moment, in seconds.

    Attributes:
        computed: how much it had a CPU.
        process: how much all threads of the process had one.
        waited: how much it was ready, and had none; ``None`` where the system does not say it.
        asleep: how much the machine was suspended.
        switches: how often the thread has waited for anything; ``None`` where nothing counts it.
        collecting: how much the collector of garbage took.
    """

    computed: float = 0.0
    process: float = 0.0
    waited: float | None = None
    asleep: float = 0.0
    switches: int | None = None
    collecting: float = 0.0


class Clocks:
    """The clocks of the thread that makes them, and alone may read them."""

    def __init__(self) -> None:
        self._schedule: int | None = None
        with suppress(OSError):  # Linux alone counts how long a thread waits for a CPU
            self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self, collecting: float = 0.0) -> Reading:
        """Return what they say now.

        Args:
            collecting: what the collector of garbage has taken so far, in seconds.
        """
        asleep = 0.0 if _BOOT is None else time.clock_gettime(_BOOT) - time.monotonic()
        return Reading(
            time.thread_time(),
            time.process_time(),
            self.waited(),
            asleep,
            self.switches(),
            collecting,
        )

    def switches(self) -> int | None:
        """Return how often this thread has waited for anything by now."""
        return None if resource is None else resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

    def waited(self) -> float | None:
        """Return how long this thread has been ready without a CPU (proc(5), schedstat)."""
        if self._schedule is None:
            return None
        try:
            return int(os.pread(self._schedule, 100, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return None

    def close(self) -> None:
        """Close what is open; on any thread."""
        schedule, self._schedule = self._schedule, None
        if schedule is not None:
            os.close(schedule)


def queueing(before: int | None, after: int | None, others: int) -> float | None:
    """Return for how long a thread has waited for the GIL, by how often it has asked for it.

    It asks again at each of Python's switch intervals.

    Args:
        before: how often it had waited for anything.
        after: the same, later.
        others: how often it has waited for something else meanwhile.
    """
    if before is None or after is None:
        return None
    return max(0, after - before - others) * sys.getswitchinterval()
