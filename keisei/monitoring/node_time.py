"""How long the processes of a run have had their nodes: from the claim of each to its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, DecimalException

from keisei.monitoring.money import EXACT, amount_of

_LONGEST = 1e9  # seconds
_SILENCE = 300.0  # seconds; a process that lives says more often how long it has


@dataclass(frozen=True, slots=True)
class Held:
    """How long one process has had its node, and what that costs.

    Attributes:
        attempt: the attempt that it belongs to.
        part: the part of the run that it writes; ``None`` for the owner.
        host: the host that it runs on: the node.
        started: when it has claimed the run, in seconds since the epoch.
        ended: up to when it has lived by now, the same, as if nobody had set the clock since.
        said: when it has said so, by the clock as it was then.
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
    said: float
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

    Its clock may have been set while it lived. So what counts is how long after its last event that
    sign was, and no more than a living process is silent for.

    Args:
        one: the process, as its last event has it.
        last_sign: when it has shown life last, in seconds since the epoch, if that is known.
    """
    if one.is_over or last_sign is None or last_sign <= one.said:
        return one
    return replace(one, ended=one.ended + min(last_sign - one.said, _SILENCE))


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
    ended = float(started) + float(elapsed)
    said_at = data.get("at")
    return Held(
        attempt,
        part,
        str(data.get("host")),
        float(started),
        ended,
        float(said_at) if isinstance(said_at, int | float) and 0 <= said_at < 1e12 else ended,
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
