"""What ends a session from without, as plain values: whatever tells it, it is one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from keisei.run.status import FinalStatus

# How long the end may take at least, in seconds, whatever deadline was told.
LEAST_GRACE = 1.0


class Preempting(NamedTuple):
    """A preemption that is under way: the run is to be saved, and the process to be over.

    Attributes:
        deadline: when the process has to be over, in seconds since the epoch.
        source: what has told it: a signal's name, `slurm`, `file`, `ray`, or what a call has given.
    """

    deadline: float
    source: str


@dataclass(frozen=True)
class Notice:
    """What ends a session before its body does.

    Attributes:
        status: how the session ends.
        source: what has told it, in a few words: a signal's name, `slurm`, who has cancelled it.
        deadline: when the process has to be over, in seconds since the epoch; ``None`` where it may
            go on, and only the session ends.
        number: the signal whose exit status the process gets; ``None`` where the process may go on.
        saves_for: where it is no preemption, how long the body may go on to a safe point that is
            saved, in seconds; ``None`` where it is told at once.
    """

    status: FinalStatus
    source: str
    deadline: float | None = None
    number: int | None = None
    saves_for: float | None = None

    @property
    def preempting(self) -> Preempting | None:
        """The same as a preemption, where it is one."""
        if self.status != "preempted" or self.deadline is None:
            return None
        return Preempting(self.deadline, self.source)


def time_left(deadline: float, now: float) -> float:
    """Return how long the graceful end may take, in seconds; a deadline that is over leaves some.

    Args:
        deadline: when the process has to be over, in seconds since the epoch.
        now: the time now, the same.
    """
    return max(LEAST_GRACE, deadline - now)
