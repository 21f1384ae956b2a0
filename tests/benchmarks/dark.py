"""A W&B server that falls silent: keisei, and what programs do today.

It is silent from the start, from the end on, or while the program leaves without ending its
session. Today is the SDK called directly on the loop, and called under
`asyncio.wait_for(asyncio.to_thread(...))` with the same deadlines. The time to exit begins at the
program's last statement. A process that is still there 20 s after it is ended by us and counts as
20 s. What keisei's sessions have logged must be in their journals.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from keisei import AsyncSessionManager, load_config
from keisei.journal.reader import read_run
from keisei.testing.wandb_server import WandbServer
from tests.benchmarks.measure import (
    ROOT,
    Row,
    child_environment,
    met,
    progress,
    row,
    workplace,
)
from tests.benchmarks.ticker import tick_during

INIT_TIMEOUT, FINISH_TIMEOUT = 4.0, 2.0
PATIENCE = 20.0
ROWS = 1000
SIDES = {"direct": "the SDK on the loop", "to_thread": "to_thread under wait_for"}
MOMENTS = {
    "start": "silent at the start",
    "end": "silent at the end",
    "never": "silent, and never finalised",
}
FIGURES = {
    "stall": ("longest stall", "ms", 25.0),
    "returned": ("time to return", "s", None),
    "exit": ("time to exit", "s", 0.3),
}


def run(*, quick: bool) -> list[Row]:
    """Measure sessions whose server falls silent.

    Args:
        quick: take fewer repeats, and leave out one way of today's.
    """
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    repeats = 1 if quick else 3
    peers = ["to_thread"] if quick else list(SIDES)
    kept: list[int] = []
    with workplace() as home:
        environ = child_environment(home)
        _live("keisei", "end", environ, home / "warm-up")
        for repeat in range(repeats):
            for moment in MOMENTS:
                progress(f"dark: {moment}, {repeat + 1} of {repeats}")
                for side in ("keisei", *peers):
                    place = home / f"{side}-{moment}-{repeat}"
                    lived = _live(side, moment, environ, place)
                    samples.setdefault((side, moment), []).append(lived)
                    if side == "keisei":
                        kept.append(sum(1 for run in place.iterdir() for _ in read_run(run).rows()))
    rows = [
        row(
            f"a server {shown_moment}, against {SIDES[side]}: {shown}",
            [sample[figure] for sample in samples["keisei", moment]],
            [sample[figure] for sample in samples[side, moment]],
            unit=unit,
            at_most=target,
        )
        for moment, shown_moment in MOMENTS.items()
        for side in peers
        for figure, (shown, unit, target) in FIGURES.items()
    ]
    whole = sum(count == ROWS for count in kept)
    text = f"{whole} of {len(kept)}"
    what = "sessions of those whose journal has every row"
    return [*rows, Row(what, text, target="all", met=met(whole == len(kept)))]


def _live(side: str, moment: str, environ: dict[str, str], place: Path) -> dict[str, float]:
    place.mkdir()
    command = [sys.executable, "-m", "tests.benchmarks.dark", "child", side, moment, str(place)]
    with WandbServer() as server:
        if moment == "start":
            server.set_mode("silent")
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environ, **server.environ()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        ended = threading.Timer(INIT_TIMEOUT + FINISH_TIMEOUT + PATIENCE, child.kill)
        ended.start()
        assert child.stdin is not None
        assert child.stdout is not None
        told: dict[str, float] = {"stall": PATIENCE, "returned": PATIENCE, "left": time.time()}
        while line := child.stdout.readline():
            if line != "tracked\n":
                told = json.loads(line)
                break  # the SDK's service may hold the pipe for longer than the program lives
            server.set_mode("silent")
            child.stdin.write("\n")
            child.stdin.flush()
        child.wait()
        left = time.time() - told["left"]
        ended.cancel()
        for pipe in (child.stdin, child.stdout):
            pipe.close()
    return {"stall": told["stall"], "returned": told["returned"], "exit": min(left, PATIENCE)}


async def _tracked() -> None:
    """Tell the parent that the run is tracked, and wait until it has silenced the server."""
    print("tracked", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def _keisei(moment: str, place: Path, took: list[float]) -> None:
    config = load_config(
        overrides={
            "logging": {"wandb_enabled": True, "log_dir": place, "log_level": "critical"},
            "wandb": {
                "mode": "online",
                "init_timeout": INIT_TIMEOUT,
                "finish_timeout": FINISH_TIMEOUT,
            },
        }
    )
    session = AsyncSessionManager(config)
    started = time.monotonic()
    await session.__aenter__()
    took.append(time.monotonic() - started)
    for step in range(ROWS):
        session.log_metrics({"loss": 1.0}, step=step)
    await _tracked()
    if moment == "never":
        await session.flush()
        return
    started = time.monotonic()
    await session.finalize_session()
    took.append(time.monotonic() - started)


async def _sdk(in_thread: bool, moment: str, place: Path, took: list[float]) -> None:
    async def call(func: Callable[[], Any], timeout: float) -> Any:
        started = time.monotonic()
        try:
            if in_thread:
                return await asyncio.wait_for(asyncio.to_thread(func), timeout)
            return func()
        except Exception:
            return None
        finally:
            took.append(time.monotonic() - started)

    def init() -> Any:
        import wandb

        settings = wandb.Settings(init_timeout=INIT_TIMEOUT, silent=True, console="off")
        return wandb.init(project="p", dir=str(place), settings=settings)

    native = await call(init, INIT_TIMEOUT)
    if native is not None:
        for step in range(ROWS):
            native.log({"loss": 1.0}, step=step)
    await _tracked()
    if native is not None and moment != "never":
        await call(native.finish, FINISH_TIMEOUT)


def _child(side: str, moment: str, place: str) -> None:
    took: list[float] = []
    work = {
        "keisei": partial(_keisei, moment, Path(place), took),
        "direct": partial(_sdk, False, moment, Path(place), took),
        "to_thread": partial(_sdk, True, moment, Path(place), took),
    }[side]

    async def main() -> None:
        ticker = await tick_during(work)
        returned = max(took, default=0.0)
        told = {"stall": ticker.longest, "returned": returned, "left": time.time()}
        print(json.dumps(told), flush=True)

    asyncio.run(main())


if __name__ == "__main__":
    _child(*sys.argv[2:])
