"""The preemption signals of a session, from their names."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

Names = str | Sequence[str]

_DEFAULT = "SIGUSR2"  # whose exit status a preemption has that no signal has told


def numbers(names: Names | None) -> frozenset[int]:
    """Return the numbers of signals, without those that Windows does not have.

    Raises:
        KeyError: there is no such signal.
    """
    listed = [names] if isinstance(names, str) else list(names or ())
    here = [name for name in listed if sys.platform != "win32" or not name.startswith("SIGUSR")]
    return frozenset(int(signal.Signals[name]) for name in here)


def exit_number(names: Names | None) -> int:
    """Return the number of the signal that any preemption exits like: the first preemption signal.

    Args:
        names: the names of the preemption signals.
    """
    first = names if isinstance(names, str) else next(iter(names or ()), _DEFAULT)
    known = signal.Signals.__members__
    return int(known.get(first) or known.get(_DEFAULT) or signal.SIGTERM)
