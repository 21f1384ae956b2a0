"""The clocks of a thread that go on while it does not answer, and while it waits for the GIL."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import NamedTuple

_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Reading(NamedTuple):
    """What the clocks of a thread say at one moment, in seconds.

    Attributes:
        computed: how much it had a CPU.
        process: how much all threads of the process had one.
        waited: how much it was ready, and had none; ``None`` where the system does not say it.
        asleep: how much the machine was suspended.
        switches: how often the thread has got a CPU; ``None`` where nothing counts it.
        collecting: how much the collector of garbage took.
    """

    computed: float = 0.0
    process: float = 0.0
    waited: float | None = None
    asleep: float = 0.0
    switches: int | None = None
    collecting: float = 0.0


class Clocks:
    """The clocks of the thread that makes them; any thread may read them.

    Where the system shows no thread's CPU time to others, those see what it has read last itself.
    """

    def __init__(self) -> None:
        self._thread, self._computed = threading.get_ident(), 0.0
        self._cpu: int | None = None
        if hasattr(time, "pthread_getcpuclockid"):
            self._cpu = time.pthread_getcpuclockid(self._thread)
        self._known: tuple[float, float | None, int | None] | None = None
        self._schedule: int | None = None
        with suppress(OSError):  # Linux alone counts how long a thread waits for a CPU
            self._schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def shown(self) -> bool:
        """Whether other threads see how much the thread has computed."""
        return self._cpu is not None

    def computed(self) -> float:
        """Return how much the thread has had a CPU, in seconds."""
        try:
            if self._cpu is not None:
                self._computed = time.clock_gettime(self._cpu)
            elif threading.get_ident() == self._thread:
                self._computed = time.thread_time()
        except OSError:  # the thread has ended
            pass
        return self._computed

    def read(self, collecting: float = 0.0) -> Reading:
        """Return what they say now.

        Args:
            collecting: what the collector of garbage has taken so far, in seconds.
        """
        asleep = 0.0 if _BOOT is None else time.clock_gettime(_BOOT) - time.monotonic()
        computed, process = self.computed(), time.process_time()
        if self._known is None or self._known[0] != computed:  # who has not run has not waited
            self._known = computed, *self._scheduled()
        _, waited, switches = self._known
        return Reading(computed, process, waited, asleep, switches, collecting)

    def _scheduled(self) -> tuple[float | None, int | None]:
        """Return how long the thread was ready without a CPU, and how often it got one."""
        if self._schedule is None:
            return None, None
        try:
            _, waited, switches = os.pread(self._schedule, 100, 0).split()  # proc(5), schedstat
            return int(waited) / 1e9, int(switches)
        except (OSError, ValueError):
            return None, None

    def close(self) -> None:
        """Close what is open; on any thread."""
        schedule, self._schedule = self._schedule, None
        if schedule is not None:
            os.close(schedule)


def queueing(before: Reading, after: Reading, others: int) -> float | None:
    """Return for how long a thread has waited for the GIL, by how often it has asked for it.

    It asks again at each of Python's switch intervals.

    Args:
        before: what its clocks have said.
        after: the same, later.
        others: how often it has got a CPU for something else meanwhile.
    """
    if before.switches is None or after.switches is None:
        return None
    return max(0, after.switches - before.switches - others) * sys.getswitchinterval()
