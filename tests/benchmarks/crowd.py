"""Two hundred sessions that log a hundred rows a second each, on one loop: how long it is held.

The same program with a function that does nothing in place of `log_metrics` is the peer: what is
left of its lag is the loop's own, with so many tasks.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio

from keisei import AppConfig, AsyncSessionManager, LoggingConfig
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace
from tests.benchmarks.ticker import run_on, tick_during

SESSIONS = 200
ROWS_A_SECOND = 100
NAMES = [f"train/metric_{number}" for number in range(10)]


def run(*, quick: bool) -> list[Row]:
    """Measure the loop beside many sessions that log.

    Args:
        quick: take fewer repeats, and asyncio alone.
    """
    repeats, loops = (2, ["asyncio"]) if quick else (3, ["asyncio", "uvloop", "trio"])
    rows = []
    for loop in loops:
        samples: list[dict[str, Any]] = []
        with workplace() as home:
            environ = child_environment(home)
            for repeat in range(repeats):
                progress(f"crowd, {loop}: {repeat + 1} of {repeats}")
                with workplace() as place:
                    samples.append(run_child("crowd", place, loop, 5, environ=environ))
        what = f"{SESSIONS} sessions, {ROWS_A_SECOND} rows a second each, {loop}"
        for value, name, target in (("p99", "p99", 10), ("longest", "longest stall", 50)):
            ours, peer = ([sample[side][value] for sample in samples] for side in ("ours", "peer"))
            rows.append(row(f"{what}: {name}", ours, peer, unit="ms", at_most=target))
        threads = [sample["threads"] for sample in samples]
        rows.append(row(f"{what}: threads of the journals", threads, unit=""))
    return rows


async def _log(sinks: list[Callable[[dict[str, object], int], None]], seconds: int) -> None:
    async def log(number: int, sink: Callable[[dict[str, object], int], None]) -> None:
        due = perf_counter() + number / len(sinks) / ROWS_A_SECOND
        for step in range(seconds * ROWS_A_SECOND):
            await anyio.sleep(max(0.0, due - perf_counter()))
            sink(dict.fromkeys(NAMES, step / 7), step)
            due += 1 / ROWS_A_SECOND

    async with anyio.create_task_group() as group:
        for number, sink in enumerate(sinks):
            group.start_soon(log, number, sink)


async def _measure(place: Path, seconds: int) -> dict[str, object]:
    config = AppConfig(logging=LoggingConfig(log_dir=place, log_level="error"))
    before = threading.active_count()
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(AsyncSessionManager(config)) for _ in range(SESSIONS)
        ]

        await _log([session.log_metrics for session in sessions], 1)
        peer = await tick_during(lambda: _log([lambda _row, _step: None] * SESSIONS, seconds))
        ours = await tick_during(
            lambda: _log([session.log_metrics for session in sessions], seconds)
        )
        threads = threading.active_count() - before
    return {"ours": ours.as_json(), "peer": peer.as_json(), "threads": threads}


def _child(place: str, loop: str, seconds: str) -> None:
    measured: dict[str, object] = {}

    async def main() -> None:
        measured.update(await _measure(Path(place), int(seconds)))

    run_on(loop, main)
    print(json.dumps(measured))


if __name__ == "__main__":
    _child(*sys.argv[2:])
