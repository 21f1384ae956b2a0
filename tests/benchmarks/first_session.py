"""A first session with W&B (offline), as a user writes it; `stall` runs it in fresh processes.

`keisei` is imported at the top, and its names are first used on the loop. Nothing else of it is
imported here: what a name costs when it is first used is a part of what is measured.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import anyio

import keisei
from tests.benchmarks.ticker import Ticker, run_on, tick_during

ROWS, PAUSE = 150, 0.01


async def with_keisei(directory: str) -> None:
    """A session from its config to its end."""
    config = keisei.load_config(
        overrides={
            "logging": {"wandb_enabled": True, "log_dir": directory, "log_level": "error"},
            "wandb": {"mode": "offline"},
        }
    )
    async with keisei.AsyncSessionManager(config) as session:
        if not session.is_wandb_active:
            raise RuntimeError("W&B did not start")
        for step in range(ROWS):
            session.log_metrics({"loss": 1.0 / (step + 1)}, step=step)
            await anyio.sleep(PAUSE)


async def with_sdk(directory: str) -> None:
    """The SDK's own calls, on the loop; between them the ticker runs."""
    import wandb  # not keisei's: the module is imported before the loop runs

    settings = wandb.Settings(silent=True, console="off", save_code=False)
    run = wandb.init(project="keisei", dir=directory, mode="offline", settings=settings)
    await anyio.sleep(PAUSE)
    for step in range(ROWS):
        run.log({"loss": 1.0 / (step + 1)}, step=step)
        await anyio.sleep(PAUSE)
    run.finish()


async def beside(directory: str) -> None:
    """The loop alone; the parent has put a busy process beside it."""
    await anyio.sleep(ROWS * PAUSE)


SIDES = {"keisei": with_keisei, "sdk": with_sdk, "beside": beside}


def main(side: str, loop: str, directory: str) -> None:
    """Run one side, and print how long it held the loop."""
    tickers: list[Ticker] = []
    if side == "sdk":
        import wandb

        del wandb
    elif "wandb" in sys.modules:
        raise RuntimeError("wandb was imported before it was asked for")

    async def ticked() -> None:
        tickers.append(await tick_during(partial(SIDES[side], directory)))

    run_on(loop, ticked)
    print(json.dumps(tickers[0].as_json()))


if __name__ == "__main__":
    main(*sys.argv[2:])
