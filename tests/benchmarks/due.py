"""What a safe point costs where nothing is due: `checkpoint_if_due`, as a training loop calls it.

One child for each repeat: on both faces, by steps alone and by time too; in turns with an
`async def` (and a plain method) that returns at once, which is what any call costs.
"""

from __future__ import annotations

import json
import sys
from time import perf_counter
from typing import Any

import anyio

from keisei import AsyncSessionManager, SessionManager, load_config
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace

CALLS = 200_000
HOUR = 3600.0


def run(*, quick: bool) -> list[Row]:
    """Measure calls where nothing is due.

    Args:
        quick: take fewer repeats.
    """
    repeats = 3 if quick else 9
    samples: list[dict[str, float]] = []
    with workplace() as home:
        environ = child_environment(home)
        for repeat in range(repeats):
            progress(f"due: {repeat + 1} of {repeats}")
            with workplace() as place:
                samples.append(run_child("due", place, environ=environ))

    def series(name: str) -> list[float]:
        return [sample[name] for sample in samples]

    return [
        row(
            f"checkpoint_if_due where nothing is due, {what}, against a call of nothing",
            series(ours),
            series(peer),
            unit="us",
            at_most=1.0,
        )
        for what, ours, peer in (
            ("awaited", "awaited", "awaited nothing"),
            ("awaited, with every_seconds", "timed", "awaited nothing"),
            ("blocking", "blocking", "nothing"),
        )
    ]


class _Nothing:
    async def awaited(self, step: int) -> None:
        """Return at once."""

    def called(self, step: int) -> None:
        """Return at once."""


async def _awaited(config: Any) -> dict[str, float]:
    nothing = _Nothing()
    async with AsyncSessionManager(config, run_name="a") as session:
        session.setup_auto_checkpointing(CALLS, state={}, at_end=False)
        began = perf_counter()
        for step in range(1, CALLS):
            await session.checkpoint_if_due(step)
        steps = perf_counter() - began
        session.setup_auto_checkpointing(CALLS, state={}, every_seconds=HOUR, at_end=False)
        began = perf_counter()
        for step in range(1, CALLS):
            await session.checkpoint_if_due(step)
        timed = perf_counter() - began
        began = perf_counter()
        for step in range(1, CALLS):
            await nothing.awaited(step)
        peer = perf_counter() - began
    return {"awaited": steps / CALLS, "timed": timed / CALLS, "awaited nothing": peer / CALLS}


def _blocking(config: Any) -> dict[str, float]:
    nothing = _Nothing()
    with SessionManager(config, run_name="b") as session:
        session.setup_auto_checkpointing(CALLS, state={}, at_end=False)
        began = perf_counter()
        for step in range(1, CALLS):
            session.checkpoint_if_due(step)
        steps = perf_counter() - began
        began = perf_counter()
        for step in range(1, CALLS):
            nothing.called(step)
        peer = perf_counter() - began
    return {"blocking": steps / CALLS, "nothing": peer / CALLS}


def _child(place: str) -> None:
    config = load_config(overrides={"logging.log_dir": place})
    print(json.dumps(anyio.run(_awaited, config) | _blocking(config)))


if __name__ == "__main__":
    _child(*sys.argv[2:])
