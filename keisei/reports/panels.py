"""What is drawn: a panel for each metric with its lines, the range of an axis, and its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from keisei.reports.series import Points

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Line(NamedTuple):
    """A line to be drawn.

    Attributes:
        name: what the legend calls it.
        points: its points.
        colour: the number of its colour.
        pale: whether it stands behind another one.
    """

    name: str
    points: Points
    colour: int = 0
    pale: bool = False


@dataclass
class Panel:
    """One metric, drawn.

    Attributes:
        title: its name, printable.
        lines: its lines, the first ones behind the others.
        notes: what is not drawn.
    """

    title: str
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def limits(values: Sequence[float]) -> tuple[float, float]:
    """Return a range that holds all values, and is not empty."""
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    if high - low <= max(largest * 1e-12, 1e-290):
        spread = largest * 0.1 if largest > 1e-290 else 1.0
        return low - spread, high + spread
    return low, high


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers in a range, about so many at most, and two at least."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= raw * 0.999)
    found = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return found if len(found) > 1 else [low, high]


def labels(values: Sequence[float]) -> list[str]:
    """Return numbers as short text that tells them apart."""
    most = max(map(abs, values))
    unit, name = next(((u, n) for u, n in _UNITS if u <= most >= 1e4), (1.0, ""))
    kind = "f" if 1e-3 <= most < 1e15 or not most else "g"
    for digits in range(13):
        found = [f"{value / unit:.{digits}{kind}}" for value in values]
        near = (abs(float(t) * unit - v) for t, v in zip(found, values, strict=True))
        if len(set(found)) == len(found) and max(near) <= most / 1000:
            break
    return [text + name if float(text) else "0" for text in found]
