"""What tells a preemption without a signal: a file, and the end of a SLURM job's time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from typing import Protocol

from keisei._log import logger
from keisei.distributed import slurm
from keisei.distributed.preemption import Preempting
from keisei.errors import quoted

_LONGEST = 64  # bytes of a preemption file that are read


class Source(Protocol):
    """Something that is looked at every second, and may tell a preemption."""

    def look(self, now: float) -> Preempting | None:
        """Return the preemption that it tells, if any; blocks.

        Args:
            now: the time, in seconds since the epoch.
        """
        ...


class PreemptFile:
    """A file whose appearance, or change, is a preemption.

    What stands there when this is made is of an earlier preemption: it counts once it changes.

    Args:
        path: the file.
        grace: how long the graceful end may take where the file has no deadline, in seconds.
    """

    def __init__(self, path: str, grace: float) -> None:
        self._path, self._grace = path, grace
        self._seen = self._state()
        if self._seen is not None:
            text = "%s (distributed.preempt_file) is there already, and counts once it changes"
            logger.warning(text, quoted(path, 300))

    def look(self, now: float) -> Preempting | None:
        """Return the preemption where the file has appeared or changed; see `Source`."""
        state = self._state()
        if state is None or state == self._seen:
            self._seen = state
            return None
        self._seen = state
        return Preempting(self._deadline() or now + self._grace, "file")

    def _state(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._path)
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _deadline(self) -> float | None:
        with suppress(OSError, ValueError):
            fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(fd, "rb") as file:
                number = float(file.read(_LONGEST).decode("ascii", "replace").strip())
            return number if isfinite(number) else None
        return None


class EndOfTime:
    """The end of a SLURM job's time, which is told some time before.

    Before it is told SLURM is asked, for the time may have been extended.

    Args:
        environ: the process's environment.
        lead: how long before the end it is told, in seconds.
        now: the time, in seconds since the epoch.
        ask: asks SLURM for the end of a job's time.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        lead: float,
        now: float,
        ask: Callable[[str], float | None] = slurm.asked_end,
    ) -> None:
        self._job, self._lead, self._ask = slurm.job_of(environ), lead, ask
        self._end = slurm.end_in(environ) if self._job else None
        # Of an older SLURM, whose environment says nothing, it is asked at the first look.
        self._asks = self._job is not None and self._end is None
        if self._end is not None and self._end <= now:
            self._end = None  # left in the environment by a job that is over

    def look(self, now: float) -> Preempting | None:
        """Return the preemption where the job's time is about to end; see `Source`."""
        if self._job is None:
            return None
        if self._asks:
            self._asks, self._end = False, self._ask(self._job)
        if self._end is None or now < self._end - self._lead:
            return None
        self._end = self._ask(self._job) or self._end
        return None if now < self._end - self._lead else Preempting(self._end, "slurm")
