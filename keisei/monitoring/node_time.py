"""How long the processes of a run have had their nodes: from the claim of each to its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, DecimalException

from keisei.monitoring.money import EXACT, amount_of

_LONGEST = 1e9  # seconds


@dataclass(frozen=True, slots=True)
class Held:
    """How long one process has had its node, and what that costs.

    Attributes:
        attempt: the attempt that it belongs to.
        part: the part of the run that it writes; ``None`` for the owner.
        host: the host that it runs on: the node.
        started: when it has claimed the run, in seconds since the epoch.
        ended: up to when it has lived by now, the same.
        is_over: whether it has recorded its end.
        gpus: how many GPUs of the node are paid for, where the config says so.
        prices: the prices, by `node_hour`, `gpu_hour` and `kwh`.
        currency: their currency.
    """

    attempt: int
    part: str | None
    host: str
    started: float
    ended: float
    is_over: bool
    gpus: int | None
    prices: Mapping[str, Decimal]
    currency: str


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Return the time that intervals cover together, in the unit of their bounds."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def by_node(held: Iterable[Held]) -> dict[tuple[int, str], list[Held]]:
    """Return the processes of each node, by attempt and host."""
    nodes: dict[tuple[int, str], list[Held]] = {}
    for one in held:
        nodes.setdefault((one.attempt, one.host), []).append(one)
    return nodes


def until(one: Held, last_sign: float | None) -> Held:
    """Return a process as it was at its last sign of life, where it has recorded no end.

    Args:
        one: the process, as its last event has it.
        last_sign: when it has shown life last, in seconds since the epoch, if that is known.
    """
    if one.is_over or last_sign is None or not one.ended < last_sign < one.started + _LONGEST:
        return one
    return replace(one, ended=last_sign)


def held_by(attempt: int, part: str | None, data: Mapping[str, object]) -> Held | None:
    """Return what an event says of a process; ``None`` where it is damaged.

    Args:
        attempt: the attempt that has logged it.
        part: the part of the run that has.
        data: what the event says.
    """
    started, elapsed = data.get("started"), data.get("elapsed_s")
    if not isinstance(started, int | float) or not isinstance(elapsed, int | float):
        return None
    if not (0 <= elapsed < _LONGEST and 0 <= started < 1e12):
        return None
    said = data.get("prices")
    prices = {
        str(name): price
        for name, value in (said if isinstance(said, Mapping) else {}).items()
        if (price := number_in(value)) is not None
    }
    gpus, currency = data.get("gpus"), data.get("currency")
    return Held(
        attempt,
        part,
        str(data.get("host")),
        float(started),
        float(started) + float(elapsed),
        data.get("ended") is True,
        gpus if type(gpus) is int and gpus >= 0 else None,
        prices,
        currency if isinstance(currency, str) else "USD",
    )


def number_in(value: object) -> Decimal | None:
    """Return the number that a value is, if it is one that an amount can be."""
    if value is None or isinstance(value, bool):
        return None
    try:
        return amount_of(value)
    except (TypeError, ValueError, DecimalException):
        return None


def in_seconds(value: float) -> Decimal:
    """Return a time in seconds as a decimal number, to the millisecond."""
    return EXACT.quantize(Decimal(max(0.0, value)), Decimal("0.001"))
