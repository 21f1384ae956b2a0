"""A thousand sessions at once on one loop, against as many plain set-ups one after the other.

All of them are set up at the same time, and when the last one is, all of them end. The stalls
hold what the garbage collector takes for the objects of so many sessions.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio

from keisei import AppConfig, AsyncSessionManager, LoggingConfig
from tests.benchmarks import plain
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace
from tests.benchmarks.ticker import run_on, tick_during

SESSIONS = 1000
WARM_UP = 20


def run(*, quick: bool) -> list[Row]:
    """Measure the thousand sessions.

    Args:
        quick: take fewer repeats.
    """
    repeats = 2 if quick else 5
    samples: list[dict[str, Any]] = []
    with workplace() as home:
        environ = child_environment(home)
        for repeat in range(repeats):
            progress(f"many: {repeat + 1} of {repeats}")
            with workplace() as place:
                samples.append(run_child("many", place, environ=environ))

    def series(value: str) -> list[float]:
        return [sample[value] for sample in samples if sample[value] is not None]

    what = f"{SESSIONS:,} sessions at once, asyncio"
    rows = [
        row(
            f"{what}: sessions a second, against plain calls one by one",
            series("keisei"),
            series("plain"),
            unit="",
            ratio_at_least=1.5,
        ),
        row(f"{what}: longest stall", series("longest"), unit="ms", at_most=50),
        row(f"{what}: p99 lag", series("p99"), unit="ms"),
        row(f"{what}: threads at the peak", series("threads"), unit="", at_most=45),
    ]
    if series("memory"):
        rows.append(row(f"{what}: memory of a live session", series("memory"), unit="KiB"))
    if series("descriptors"):
        left = series("descriptors")
        rows.append(row(f"{what}: descriptors left", left, unit="", at_most=0))
    return rows


async def _sessions_at_once(config: AppConfig, count: int, at_peak: Any = lambda: None) -> None:
    """Set up sessions at the same time, and end them when the last one is set up."""
    all_up = anyio.Event()
    up = 0

    async def session() -> None:
        nonlocal up
        async with AsyncSessionManager(config):
            up += 1
            if up == count:
                at_peak()
                all_up.set()
            await all_up.wait()

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(session)


def _memory() -> int | None:
    """Return the bytes of this process that are in memory, where the system tells."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int | None:
    """Count this process's open descriptors, where the system tells."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return None


async def _measure(place: Path) -> dict[str, float | None]:
    root, plain_root = place / "keisei", place / "plain"
    plain_root.mkdir()
    config = AppConfig(logging=LoggingConfig(log_dir=root, log_level="error"))
    await _sessions_at_once(config, WARM_UP)
    for number in range(WARM_UP):
        plain.Session(str(plain_root), f"warm-up-{number}", config).end()
    gc.collect()

    threads: list[int] = []
    memory: list[int | None] = [_memory()]
    descriptors = _descriptors()
    started = perf_counter()
    ended = started

    async def work() -> None:
        nonlocal started, ended
        started = perf_counter()
        await _sessions_at_once(config, SESSIONS, lambda: memory.append(_memory()))
        ended = perf_counter()

    ticker = await tick_during(work, lambda: threads.append(threading.active_count()))
    after = _descriptors()

    plain_started = perf_counter()
    for number in range(SESSIONS):
        plain.Session(str(plain_root), f"session-{number}", config).end()
    plain_ended = perf_counter()
    before, peak = memory
    return {
        "keisei": SESSIONS / (ended - started),
        "plain": SESSIONS / (plain_ended - plain_started),
        "threads": max(threads),
        "memory": None if peak is None or before is None else (peak - before) / SESSIONS,
        "descriptors": None if after is None or descriptors is None else after - descriptors,
        **ticker.as_json(),
    }


def _child(place: str) -> None:
    measured: dict[str, float | None] = {}

    async def main() -> None:
        measured.update(await _measure(Path(place)))

    run_on("asyncio", main)
    print(json.dumps(measured))


if __name__ == "__main__":
    _child(*sys.argv[2:])
