"""How long a session with W&B (offline) holds the loop, against the SDK called on the loop.

In a child process keisei's session is set up and ended twice beside a ticker; in another one the
same calls of the SDK are made on the loop. Between its calls the peer lets the ticker run, so
that its longest stall is its longest single call and not their sum. A second session is over
after some twenty ticks, of which the 99th percentile is the longest.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import anyio

from keisei import AppConfig, AsyncSessionManager, LoggingConfig, WandbConfig
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace
from tests.benchmarks.ticker import Ticker, run_on, tick_during

PAUSE = 0.01
SESSIONS = ("first", "second")


def run(*, quick: bool) -> list[Row]:
    """Measure the stalls.

    Args:
        quick: take fewer repeats.
    """
    repeats = 3 if quick else 9
    sides = [
        ("keisei", "asyncio"),
        ("sdk", "asyncio"),
        ("keisei", "uvloop"),
        ("keisei", "trio"),
    ]
    samples: dict[tuple[str, str], list[dict[str, dict[str, float]]]] = {s: [] for s in sides}
    with workplace() as place:
        environ = child_environment(place)
        for repeat in range(-1, repeats):  # the first one only warms the caches
            progress(f"stall: {'warm-up' if repeat < 0 else f'{repeat + 1} of {repeats}'}")
            for side, loop in sides:
                directory = place / f"{side}-{loop}-{repeat}"
                directory.mkdir()
                measured = run_child("stall", side, loop, directory, environ=environ)
                if repeat >= 0:
                    samples[side, loop].append(measured)

    def series(side: str, loop: str, part: str, value: str) -> list[float]:
        return [measured[part][value] for measured in samples[side, loop]]

    rows = []
    for loop in ("asyncio", "uvloop", "trio"):
        for part in SESSIONS:
            for value, shown in (("longest", "longest stall"), ("p99", "p99 lag")):
                first = part == "first"
                rows.append(
                    row(
                        f"{part} session with W&B offline (warm bytecode), {loop}: {shown}",
                        series("keisei", loop, part, value),
                        series("sdk", "asyncio", part, value),
                        unit="ms",
                        ratio_at_most=1 / 25 if first and value == "longest" else None,
                        at_most=2.0 if first and value == "p99" else None,
                    )
                )
    for value, shown in (("longest", "longest stall"), ("p99", "p99 lag")):
        idle = series("keisei", "asyncio", "idle", value)
        rows.append(row(f"an idle loop, for comparison, asyncio: {shown}", idle, unit="ms"))
    return rows


async def _keisei_session(directory: Path) -> None:
    config = AppConfig(
        logging=LoggingConfig(wandb_enabled=True, log_dir=directory, log_level="error"),
        wandb=WandbConfig(mode="offline"),
    )
    async with AsyncSessionManager(config) as session:
        if not session.is_wandb_active:
            raise RuntimeError("W&B did not start")


async def _sdk_calls(directory: Path) -> None:
    import wandb

    await anyio.sleep(PAUSE)
    # What keisei/trackers/wandb.py sets, too.
    settings = wandb.Settings(
        silent=True,
        console="off",
        init_timeout=90.0,
        finish_timeout=9.7,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=0.2,
        x_disable_meta=True,
        x_save_requirements=False,
        save_code=False,
    )
    run = wandb.init(
        project="keisei",
        dir=str(directory),
        config=AppConfig().model_dump(mode="json"),
        mode="offline",
        reinit="create_new",
        settings=settings,
    )
    await anyio.sleep(PAUSE)
    run.finish(exit_code=0)


def _child(side: str, loop: str, directory: str) -> None:
    if "wandb" in sys.modules:
        raise RuntimeError("wandb was imported before it was asked for")
    tickers: dict[str, Ticker] = {}

    async def main() -> None:
        tickers["idle"] = await tick_during(lambda: anyio.sleep(0.5))
        for part in SESSIONS:
            place = Path(directory, part)
            place.mkdir()
            session = _keisei_session if side == "keisei" else _sdk_calls
            tickers[part] = await tick_during(partial(session, place))

    run_on(loop, main)
    print(json.dumps({part: ticker.as_json() for part, ticker in tickers.items()}))


if __name__ == "__main__":
    _child(*sys.argv[2:])
