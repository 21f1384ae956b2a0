"""How long the storms are: the variable KEISEI_STORM says which share of their repetitions to run.

`KEISEI_STORM=0.1 python -m pytest -m storm -s` runs a tenth of them; without it all are run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# Read once: within a test no variable of keisei's own is set.
_SHARE = float(os.environ.get("KEISEI_STORM") or 1)


def repetitions(count: int, share: float = _SHARE) -> int:
    """Return how many of a storm's repetitions to run: the share of them, and at least one."""
    return max(1, min(count, round(count * share)))


def some_of(cases: Sequence[T], share: float = _SHARE) -> list[T]:
    """Return the share of a storm's cases, at even distances from the first to the last one."""
    number = repetitions(len(cases), share)
    return [cases[n * len(cases) // number] for n in range(number)]
