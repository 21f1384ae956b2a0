"""What `log_image` of a megapixel costs its caller, and for how long it holds the event loop.

One child for each repeat, in turns with a copy of the same array, which is what the call has to
make. The loop's stall is the longest lateness of a task that sleeps for a millisecond, while images
are logged at fifty a second; the thread that encodes them runs meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from time import perf_counter
from typing import Any

from keisei import AsyncSessionManager, load_config
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace

CALLS = 100
EVERY = 0.02
TICK = 0.001


def run(*, quick: bool) -> list[Row]:
    """Measure images of one megapixel, of uint8 with three channels.

    Args:
        quick: take fewer repeats.
    """
    repeats = 3 if quick else 9
    samples: list[dict[str, float]] = []
    with workplace() as home:
        environ = child_environment(home)
        for repeat in range(repeats):
            progress(f"media: {repeat + 1} of {repeats}")
            with workplace() as place:
                samples.append(run_child("media", place, environ=environ))

    def series(name: str) -> list[float]:
        return [sample[name] for sample in samples]

    return [
        row(
            "log_image of a megapixel, the call, against a copy of the array",
            series("call"),
            series("copy"),
            unit="ms",
            at_most=1.0,
        ),
        row(
            "the loop's lateness at p99 meanwhile, against no images",
            series("late"),
            series("late without"),
            unit="ms",
            at_most=2.0,
        ),
    ]


async def _measured(config: Any) -> dict[str, float]:
    import numpy as np

    ramp = np.add.outer(np.arange(1000), np.arange(1000)) % 256
    image = ramp.astype(np.uint8)[..., None].repeat(3, 2)
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(TICK)
            late.append(perf_counter() - began - TICK)

    def p99() -> float:
        return sorted(late)[int(len(late) * 0.99)]

    calls: list[float] = []
    copies: list[float] = []
    async with AsyncSessionManager(config, run_name="a") as session:
        session.log_image("warm", image)
        await session.flush()
        ticking = asyncio.create_task(tick())
        for _ in range(CALLS):
            began = perf_counter()
            image.copy()
            copies.append(perf_counter() - began)
            await asyncio.sleep(EVERY)
        without = p99()
        late.clear()
        for step in range(CALLS):
            image[0, 0] = step
            began = perf_counter()
            session.log_image("image", image, step)
            calls.append(perf_counter() - began)
            await asyncio.sleep(EVERY)
        with_images = p99()
        ticking.cancel()
    return {
        "call": statistics.median(calls),
        "copy": statistics.median(copies),
        "late": with_images,
        "late without": without,
    }


def _child(place: str) -> None:
    config = load_config(overrides={"logging.log_dir": place})
    print(json.dumps(asyncio.run(_measured(config))))


if __name__ == "__main__":
    _child(*sys.argv[2:])
