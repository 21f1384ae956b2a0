"""A heartbeat that shows whether the event loop was ever held."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

import anyio
import numpy as np


@dataclass
class Heartbeat:
    """A ticker, and how late each of its ticks came."""

    interval: float = 0.005
    """Seconds between two ticks."""
    lags: list[float] = field(default_factory=list)
    """Seconds by which each tick was late."""
    asked: int = 0
    """Ticks that `longest_since_asked` has covered."""

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            due = perf_counter() + self.interval
            await anyio.sleep(self.interval)
            self.lags.append(perf_counter() - due)

    def longest_since_asked(self) -> float:
        """Return the longest lag since the last call, in seconds."""
        new, self.asked = self.lags[self.asked :], len(self.lags)
        return max(new, default=0.0)

    def __str__(self) -> str:
        """Return the median, the 99th percentile and the longest lag, in one line."""
        if not self.lags:
            return "heartbeat: no tick"
        median, p99, longest = 1000 * np.percentile(self.lags, [50, 99, 100])
        return (
            f"heartbeat: {len(self.lags)} ticks came late by {median:.1f} ms (median), "
            f"{p99:.1f} ms (p99), {longest:.1f} ms (longest)"
        )
