"""A metric's curve, and what it comes to: its value at the end, and when it reached a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

END = 0.1  # the share of a curve that is its end


@dataclass
class Curve:
    """The values of one metric in one run, in order, without what was superseded.

    Attributes:
        steps: the training step of each value; ``None`` where a row has none.
        times: when each was logged, in seconds on the run's clock.
        values: the values.
    """

    steps: list[int | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def last_step(self) -> int | None:
        """The largest step; ``None`` where no row has one."""
        return max((step for step in self.steps if step is not None), default=None)


def common_end(curves: Sequence[Curve]) -> int | None:
    """Return the last step that all curves have reached; ``None`` where one has no steps."""
    last = [curve.last_step for curve in curves]
    known = [step for step in last if step is not None]
    return min(known) if known and len(known) == len(last) else None


def at_end(curve: Curve, last: int | None, end: float = END) -> float | None:
    """Return the mean of a curve's end: of its last tenth up to a step.

    Args:
        curve: the curve.
        last: the step at which the curves that are compared end; ``None`` for the curve's own end.
        end: the share of the curve that is its end.

    Returns:
        NaN where the curve has come to what is no finite number, and ``None`` where it is empty.
    """
    if last is None:
        part = curve.values[-max(1, round(len(curve.values) * end)) :]
    else:
        first = min((step for step in curve.steps if step is not None), default=last)
        begin = last - (last - first) * end
        part = [
            value
            for step, value in zip(curve.steps, curve.values, strict=True)
            if step is not None and begin <= step <= last
        ]
    if not part:
        return None
    if not math.isfinite(part[-1]):
        return math.nan
    finite = [value for value in part if math.isfinite(value)]
    return math.fsum(finite) / len(finite)
