"""The loop after a large event, with W&B named and without any tracker."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from time import perf_counter

import anyio

from keisei import AsyncSessionManager, load_config
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace
from tests.benchmarks.ticker import run_on, tick_during

MEGABYTES = (1, 10)
SIDES = {"with": "with W&B", "without": "without"}
SECONDS = 3.0  # after the event; its journal record and its way to W&B are within


def run(*, quick: bool) -> list[Row]:
    """Measure the stalls.

    Args:
        quick: take fewer repeats.
    """
    repeats = 2 if quick else 7
    samples: dict[tuple[int, str], list[dict[str, float]]] = {}
    with workplace() as home:
        environ = child_environment(home)
        with workplace() as place:  # only warms the caches
            run_child("large", "with", 0, place, environ=environ)
        for repeat in range(repeats):
            for megabytes in MEGABYTES:
                progress(f"large: {megabytes} MB, {repeat + 1} of {repeats}")
                for side in SIDES:
                    with workplace() as place:
                        measured = run_child("large", side, megabytes, place, environ=environ)
                    samples.setdefault((megabytes, side), []).append(measured)
    return [
        row(
            f"an event of {megabytes} MB, W&B named, against without trackers: {shown}",
            *([sample[value] for sample in samples[megabytes, side]] for side in SIDES),
            unit="ms",
            at_most=5.0 if value == "longest" else None,
        )
        for megabytes in MEGABYTES
        for value, shown in {
            "longest": "longest stall of the loop afterwards",
            "p99": "p99 lag afterwards",
            "call": "the call itself",
        }.items()
    ]


async def _measure(side: str, megabytes: int, place: Path) -> dict[str, float]:
    wandb = side == "with"
    config = load_config(
        overrides={
            "logging": {"log_dir": str(place), "log_level": "critical", "wandb_enabled": wandb},
            "wandb": {"mode": "offline"},
        }
    )
    data = {"text": "x" * (megabytes * 1_000_000)}
    async with AsyncSessionManager(config) as session:
        session.log_metrics({"loss": 1.0}, step=0)
        await session.flush()
        await anyio.sleep(0.5)
        started = perf_counter()
        session.log_event("large", data)
        call = perf_counter() - started
        ticker = await tick_during(partial(anyio.sleep, SECONDS))
    return {**ticker.as_json(), "call": call}


def _child(side: str, megabytes: str, place: str) -> None:
    found: list[dict[str, float]] = []

    async def main() -> None:
        found.append(await _measure(side, int(megabytes), Path(place)))

    run_on("asyncio", main)
    print(json.dumps(found[0]))


if __name__ == "__main__":
    _child(*sys.argv[2:])
