"""A W&B server that falls silent: keisei, and what programs do today.

Today is the SDK called directly on the loop, and called under
`asyncio.wait_for(asyncio.to_thread(...))` with the same deadlines. A process that is still there
20 s after it should have left is ended by us and counts as 20 s.
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
from tests.benchmarks.measure import ROOT, Row, child_environment, progress, row, workplace
from tests.benchmarks.ticker import tick_during
from tests.support.wandb_server import FakeWandb

INIT_TIMEOUT, FINISH_TIMEOUT = 4.0, 2.0
PATIENCE = 20.0
SIDES = {"direct": "the SDK on the loop", "to_thread": "to_thread under wait_for"}
FIGURES = {"stall": "longest stall", "returned": "time to return", "exit": "time to exit"}


def run(*, quick: bool) -> list[Row]:
    """Measure sessions whose server is silent at their start, and at their end.

    Args:
        quick: take fewer repeats.
    """
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    repeats = 1 if quick else 3
    with workplace() as home:
        environ = child_environment(home)
        _live("keisei", "end", environ, home / "warm-up")
        for repeat in range(repeats):
            for moment in ("start", "end"):
                progress(f"dark: {moment}, {repeat + 1} of {repeats}")
                for side in ("keisei", *SIDES):
                    place = home / f"{side}-{moment}-{repeat}"
                    lived = _live(side, moment, environ, place)
                    samples.setdefault((side, moment), []).append(lived)
    rows = []
    for moment in ("start", "end"):
        for side, peer in SIDES.items():
            for figure, shown in FIGURES.items():
                ours, theirs = (
                    [sample[figure] for sample in samples[who, moment]] for who in ("keisei", side)
                )
                rows.append(
                    row(
                        f"a server silent at the {moment}, against {peer}: {shown}",
                        ours,
                        theirs,
                        unit="ms" if figure == "stall" else "s",
                        at_most={"stall": 25.0, "exit": 1.0}.get(figure),
                    )
                )
    return rows


def _live(side: str, moment: str, environ: dict[str, str], place: Path) -> dict[str, float]:
    place.mkdir()
    command = [sys.executable, "-m", "tests.benchmarks.dark", "child", side, str(place)]
    with FakeWandb() as server:
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
        for line in child.stdout:
            if line == "tracked\n":
                server.set_mode("silent")
                child.stdin.write("\n")
                child.stdin.flush()
            else:
                told = json.loads(line)
        child.wait()
        ended.cancel()
    left = time.time() - told["left"]
    return {"stall": told["stall"], "returned": told["returned"], "exit": min(left, PATIENCE)}


async def _tracked() -> None:
    """Tell the parent that the run is tracked, and wait until it has silenced the server."""
    print("tracked", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def _keisei(place: Path, took: list[float]) -> None:
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
    await _tracked()
    started = time.monotonic()
    await session.finalize_session()
    took.append(time.monotonic() - started)


async def _sdk(in_thread: bool, place: Path, took: list[float]) -> None:
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
    await _tracked()
    if native is not None:
        await call(native.finish, FINISH_TIMEOUT)


def _child(side: str, place: str) -> None:
    took: list[float] = []
    work = {
        "keisei": partial(_keisei, Path(place), took),
        "direct": partial(_sdk, False, Path(place), took),
        "to_thread": partial(_sdk, True, Path(place), took),
    }[side]

    async def main() -> None:
        ticker = await tick_during(work)
        told = {"stall": ticker.longest, "returned": max(took), "left": time.time()}
        print(json.dumps(told), flush=True)

    asyncio.run(main())


if __name__ == "__main__":
    _child(*sys.argv[2:])
