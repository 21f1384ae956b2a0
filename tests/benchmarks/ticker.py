"""How long the loop is held: a task that sleeps 1 ms and notes how late it wakes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter

import anyio

PERIOD = 0.001


@dataclass
class Ticker:
    """The lags of a ticker, in seconds.

    The loops' own timers count in milliseconds, so that an idle loop too shows about 1 ms.
    """

    lags: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """The longest stall."""
        return max(self.lags)

    @property
    def p99(self) -> float:
        """The 99th percentile of the lags."""
        return sorted(self.lags)[math.ceil(0.99 * len(self.lags)) - 1]

    def as_json(self) -> dict[str, float]:
        """Return both as plain data."""
        return {"longest": self.longest, "p99": self.p99}


async def tick_during(
    work: Callable[[], Awaitable[object]], on_tick: Callable[[], object] = lambda: None
) -> Ticker:
    """Run a ticker beside some work, and a few ticks longer.

    Args:
        work: what may hold the loop.
        on_tick: called at each tick.
    """
    ticker = Ticker()

    async def tick() -> None:
        while True:
            due = perf_counter() + PERIOD
            await anyio.sleep(PERIOD)
            ticker.lags.append(perf_counter() - due)
            on_tick()

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await anyio.sleep(20 * PERIOD)
        ticker.lags.clear()
        await work()
        await anyio.sleep(5 * PERIOD)
        group.cancel_scope.cancel()
    return ticker


def run_on(loop: str, main: Callable[[], Awaitable[object]]) -> None:
    """Run a program on ``asyncio``, ``uvloop`` or ``trio``."""
    if loop == "uvloop":
        anyio.run(main, backend="asyncio", backend_options={"use_uvloop": True})
    else:
        anyio.run(main, backend=loop)
