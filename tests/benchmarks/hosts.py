"""What host processes cost the program: time to enter a session, processes, and memory.

With `tracking.wait: false` nobody waits for a tracker; entering a session with four of them is
compared with entering one without any, for the first session of a process (which starts the host
processes) and for later ones. Another child has a hundred sessions with three trackers each and
counts the processes. The memory is the program's own, in fresh processes with W&B and without.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

from keisei import AppConfig, AsyncSessionManager, load_config
from tests.benchmarks.measure import (
    Row,
    child_environment,
    host_processes,
    met,
    own_memory,
    progress,
    row,
    run_child,
    workplace,
)
from tests.benchmarks.ticker import run_on
from tests.benchmarks.trackers import options_in

THREE = ("tensorboard", "trackio", "wandb")
FOUR = ("mlflow", *THREE)
SESSIONS = 100
LATER = 20  # sessions of each side after the first, of which the median is taken


def run(*, quick: bool) -> list[Row]:
    """Measure entering, count the processes, and compare the memory.

    Args:
        quick: take fewer repeats.
    """
    rows: list[Row] = []
    with workplace() as home:
        environ = child_environment(home)

        def child(what: str, *args: object) -> Any:
            with workplace() as place:
                return run_child("hosts", what, place, *args, environ=environ)

        for loop in ("asyncio", "trio"):
            rows += _entering(child, loop, repeats=5 if quick else 15)
        progress(f"hosts: {SESSIONS} sessions")
        count = child("count", "asyncio")
        what = f"host processes of {SESSIONS} sessions with {len(THREE)} trackers"
        rows.append(row(what, [count["hosts"]], unit="", at_most=len(THREE)))
        shown = f"trackers live of {SESSIONS * len(THREE)} in them"
        live = count["live"] == SESSIONS * len(THREE)
        rows.append(Row(shown, str(count["live"]), target="all", met=met(live)))
        rows += _memory(child, repeats=3 if quick else 9)
    return rows


def _entering(child: Any, loop: str, repeats: int) -> list[Row]:
    first: dict[str, list[float]] = {"none": [], "four": []}
    later: dict[str, list[float]] = {"none": [], "four": []}
    child("later", loop)  # only warms the caches
    for repeat in range(repeats):
        progress(f"hosts: entering on {loop}, {repeat + 1} of {repeats}")
        for side, series in first.items():
            series.append(child("first", loop, side))
        if repeat % 3 == 0:
            for side, taken in child("later", loop).items():
                later[side].append(taken)
    what = "entering a session with four trackers, tracking.wait: false, against one without"
    return [
        row(f"{what}, {loop}: {moment}", times["four"], times["none"], unit="ms", ratio_at_most=1.2)
        for moment, times in (("first", first), ("later", later))
    ]


def _memory(child: Any, repeats: int) -> list[Row]:
    series: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    for repeat in range(repeats):
        progress(f"hosts: memory, {repeat + 1} of {repeats}")
        for side, samples in series.items():
            if (measured := child("memory", "asyncio", side)) is not None:
                samples.append(measured)
    if not series["with"]:
        return []  # the system does not tell
    rows = []
    for kind in ("uss", "rss"):
        ours, theirs = ([sample[kind] for sample in series[side]] for side in ("with", "without"))
        more = statistics.median(ours) - statistics.median(theirs)
        what = f"memory of the program with W&B against without, {kind.upper()}"
        rows.append(row(what, ours, theirs, unit="MB"))
        rows.append(row(f"{what}: more", [more], unit="MB", at_most=3.0))
    return rows


def _config(place: Path, names: tuple[str, ...], *, wait: bool) -> AppConfig:
    options = options_in(place)
    wandb = "wandb" in names
    return load_config(
        overrides={
            "logging": {"log_dir": str(place), "log_level": "critical", "wandb_enabled": wandb},
            "wandb": {"mode": "offline"},
            "tracking": {
                "wait": wait,
                "linger": 0.0,
                "trackers": {name: options[name] for name in names if name != "wandb"},
            },
        }
    )


async def _entered(place: Path, side: str) -> tuple[float, AsyncSessionManager[AppConfig]]:
    """Enter a session; return how long that took."""
    config = _config(place, FOUR if side == "four" else (), wait=False)
    session = AsyncSessionManager(config)
    started = perf_counter()
    await session.__aenter__()
    return perf_counter() - started, session


async def _first(place: Path, side: str) -> float:
    taken, session = await _entered(place, side)
    await session.__aexit__(None, None, None)
    return taken


async def _later(place: Path) -> dict[str, float]:
    """Enter sessions of both sides in turns, while the host processes are there."""
    _, first = await _entered(place, "four")
    await first.setup_wandb()
    await first.setup_trackers()
    times: dict[str, list[float]] = {"none": [], "four": []}
    for _ in range(LATER):
        for side, series in times.items():
            taken, session = await _entered(place, side)
            series.append(taken)
            await session.setup_trackers()  # they have nothing to do when the next one is entered
            await session.setup_wandb()
            await session.__aexit__(None, None, None)
    await first.__aexit__(None, None, None)
    return {side: statistics.median(series) for side, series in times.items()}


async def _count(place: Path) -> dict[str, int]:
    config = _config(place, THREE, wait=True)
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(AsyncSessionManager(config)) for _ in range(SESSIONS)
        ]
        for session in sessions:
            session.log_metrics({"loss": 1.0}, step=0)
            await session.flush()
        states = [
            known["state"]
            for session in sessions
            for known in session.get_session_summary()["trackers"].values()
        ]
        return {"hosts": len(host_processes(os.getpid())), "live": states.count("live")}


async def _memory_of(place: Path, side: str) -> dict[str, int] | None:
    config = _config(place, ("wandb",) if side == "with" else (), wait=True)
    async with AsyncSessionManager(config) as session:
        for step in range(1000):
            session.log_metrics({"loss": 1.0}, step=step)
        await session.flush()
        gc.collect()
        return own_memory()


def _child(what: str, place: str, loop: str, *sides: str) -> None:
    found: list[Any] = []

    works: dict[str, Callable[..., Awaitable[Any]]] = {
        "first": _first,
        "later": _later,
        "count": _count,
        "memory": _memory_of,
    }

    async def main() -> None:
        found.append(await works[what](Path(place), *sides))

    run_on(loop, main)
    print(json.dumps(found[0]))


if __name__ == "__main__":
    _child(*sys.argv[2:])
