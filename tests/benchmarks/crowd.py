"""200 open sessions that log on one loop, without trackers and with one given as an object each.

Each session has a task that logs a row of ten floats a hundred times a second: 20,000 rows a second
together. The peer is the same tasks on the same loop, which only copy their rows: what is left of
the lag then is the loop's own, with so many tasks.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio

from keisei import AsyncSessionManager, load_config
from keisei.testing import MemoryTracker
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace
from tests.benchmarks.ticker import run_on, tick_during

SESSIONS, ROWS_A_SECOND = 200, 100
METRICS = {f"train/metric_{number}": number / 7 for number in range(10)}
SIDES = {"copies": "no sessions", "none": "without trackers", "object": "a MemoryTracker in each"}
VALUES = {"p99": ("p99 lag", 10.0), "longest": ("longest stall", 50.0)}

Log = Callable[[dict[str, float], int], object]


def run(*, quick: bool) -> list[Row]:
    """Measure the stalls.

    Args:
        quick: take fewer repeats, and a shorter time.
    """
    repeats, seconds = (2, 3) if quick else (5, 10)
    loops = ("asyncio",) if quick else ("asyncio", "uvloop", "trio")
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    with workplace() as home:
        environ = child_environment(home)
        for repeat in range(repeats):
            for loop in loops:
                for side in SIDES:
                    progress(f"crowd: {SIDES[side]}, {loop}, {repeat + 1} of {repeats}")
                    with workplace() as place:
                        measured = run_child("crowd", side, loop, seconds, place, environ=environ)
                    samples.setdefault((loop, side), []).append(measured)
    what = f"{SESSIONS} open sessions, {ROWS_A_SECOND} rows a second each"
    rows = [
        row(
            f"{what}, {SIDES[side]}, {loop}: {shown}, against only copying the rows",
            [sample[value] for sample in samples[loop, side]],
            [sample[value] for sample in samples[loop, "copies"]],
            unit="ms",
            at_most=target,
        )
        for loop in loops
        for side in ("none", "object")
        for value, (shown, target) in VALUES.items()
    ]
    rows += [
        row(f"{what}, {SIDES[side]}, {loop}: {shown}", values, unit="")
        for loop in loops
        for side in ("none", "object")
        for shown, values in {
            "threads": [sample["threads"] for sample in samples[loop, side]],
            "rows a second": [sample["rows"] for sample in samples[loop, side]],
            "rows that no tracker had by then": [
                sample["behind"] for sample in samples[loop, side]
            ],
        }.items()
    ]
    return rows


async def _log_all(logs: list[Log], seconds: float) -> int:
    """Log in a task for each session; return how many rows that were."""
    period = 1 / ROWS_A_SECOND
    ends = perf_counter() + seconds + period
    rows = 0

    async def log_rows(log: Log, number: int) -> None:
        nonlocal rows
        due = perf_counter() + period * number / len(logs)  # not all at the same instant
        while due < ends:
            await anyio.sleep(max(0.0, due - perf_counter()))
            log(METRICS, rows)
            rows += 1
            due += period

    async with anyio.create_task_group() as group:
        for number, log in enumerate(logs):
            group.start_soon(log_rows, log, number)
    return rows


async def _measure(side: str, seconds: float, place: Path) -> dict[str, float]:
    config = load_config(overrides={"logging": {"log_dir": str(place), "log_level": "critical"}})
    logs: list[Log] = []
    async with AsyncExitStack() as stack:
        sessions = []
        for _ in range(SESSIONS if side != "copies" else 0):
            sessions.append(await stack.enter_async_context(AsyncSessionManager(config)))
        if side == "object":
            for session in sessions:
                await session.setup_remote_logging(MemoryTracker())
        logs += [session.log_metrics for session in sessions]
        if side == "copies":
            logs += [lambda metrics, step: dict(metrics)] * SESSIONS
        await _log_all(logs, 0.5)
        gc.collect()  # what the sessions' own set-up has left
        counted: dict[str, float] = {}

        async def work() -> None:
            counted["rows"] = await _log_all(logs, seconds) / seconds
            counted["threads"] = threading.active_count()

        ticker = await tick_during(work)
        behind = sum(_behind(session) for session in sessions)
    return {**ticker.as_json(), **counted, "behind": behind}


def _behind(session: AsyncSessionManager[Any]) -> int:
    return sum(known["behind"] for known in session.get_session_summary()["trackers"].values())


def _child(side: str, loop: str, seconds: str, place: str) -> None:
    found: list[dict[str, float]] = []

    async def main() -> None:
        found.append(await _measure(side, float(seconds), Path(place)))

    run_on(loop, main)
    print(json.dumps(found[0]))


if __name__ == "__main__":
    _child(*sys.argv[2:])
