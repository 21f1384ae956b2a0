"""How long the loop is held while four trackers are live, and one of them hangs.

A session gets 10,000 rows of ten floats a second. TensorBoard, MLflow (SQLite), Trackio and W&B
(offline) follow it; the trackers take turns in hanging, each from its first batch on. Before that
the same process shows the same loop when it is idle, when the rows are logged without trackers,
and while the four start.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import anyio

from keisei import AppConfig, AsyncSessionManager, load_config
from keisei.trackers.host.client import ApartRun
from keisei.trackers.worker import Lane
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace
from tests.benchmarks.sinks import built
from tests.benchmarks.ticker import PERIOD, run_on, tick_during

TRACKERS = ("tensorboard", "mlflow", "trackio", "wandb")
ROWS_A_SECOND = 10_000
PHASES = {
    "idle": "an idle loop",
    "logging": "10,000 rows a second, no trackers",
    "starting": "four trackers start",
    "live": "10,000 rows a second, four trackers, one of which hangs",
}


def run(*, quick: bool) -> list[Row]:
    """Measure the stalls.

    Args:
        quick: let one tracker hang, not each of them, and take a shorter time.
    """
    seconds = 3 if quick else 10
    sides = [(loop, hung) for loop in ("asyncio", "uvloop", "trio") for hung in TRACKERS]
    if quick:
        sides = [("asyncio", "mlflow"), ("asyncio", "wandb")]
    samples: dict[str, list[dict[str, dict[str, float]]]] = {}
    with workplace() as home:
        environ = child_environment(home)
        with workplace() as place:  # the first one only warms the caches
            run_child("lanes", "asyncio", "wandb", 1, place, environ=environ)
        for loop, hung in sides:
            progress(f"lanes: {loop}, {hung} hangs")
            with workplace() as place:
                measured = run_child("lanes", loop, hung, seconds, place, environ=environ)
            samples.setdefault(loop, []).append(measured)
    return [
        row(
            f"{what}, {loop}: {shown}",
            [measured[phase][value] for measured in measurements],
            [measured["idle"][value] for measured in measurements] if phase != "idle" else (),
            unit="ms",
            at_most=target if phase == "live" else None,
        )
        for loop, measurements in samples.items()
        for phase, what in PHASES.items()
        for value, shown, target in (("p99", "p99 lag", 2.0), ("longest", "longest stall", 25.0))
    ]


def options_in(place: Path) -> dict[str, dict[str, object]]:
    """Give the trackers' options, so that each keeps what it gets in a directory."""
    os.environ["TRACKIO_DIR"] = str(place / "trackio")
    return {
        "mlflow": {"tracking_uri": f"sqlite:///{place}/mlflow.db"},
        "wandb": {"mode": "offline"},
    }


def hang(lane: Lane) -> None:
    """Let a tracker hang for ever: its process is stopped, or its `send` does not return."""
    if isinstance(lane.run, ApartRun):
        process = lane.run._tracker._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
    else:
        assert lane.run is not None
        lane.run.send = lambda records: time.sleep(3600)  # type: ignore[method-assign]


def config_in(place: Path) -> AppConfig:
    """Make a config whose runs live in a directory, and end soon where a tracker hangs."""
    return load_config(
        overrides={
            "logging": {"log_dir": str(place), "log_level": "critical"},
            "wandb": {"finish_timeout": 1.0},
        }
    )


async def log_rows(session: AsyncSessionManager[AppConfig], seconds: float) -> None:
    """Log 10,000 rows a second, as many at a time as are due."""
    started = time.perf_counter()
    rows = built(int(seconds * ROWS_A_SECOND))
    logged = 0
    while (passed := time.perf_counter() - started) < seconds:
        while logged < passed * ROWS_A_SECOND:
            metrics, step = next(rows)
            session.log_metrics(metrics, step)
            logged += 1
        await anyio.sleep(PERIOD)


async def measure(hung: str, seconds: float, place: Path) -> dict[str, dict[str, float]]:
    """Measure all phases.

    Args:
        hung: the tracker that hangs; another name for none.
        seconds: how long each lasts.
        place: a directory for everything.
    """
    told = {"idle": (await tick_during(partial(anyio.sleep, seconds))).as_json()}
    async with AsyncSessionManager(config_in(place)) as session:
        ticker = await tick_during(partial(log_rows, session, seconds))
    told["logging"] = ticker.as_json()
    options = options_in(place)
    async with AsyncSessionManager(config_in(place)) as session:

        async def start() -> None:
            for name in TRACKERS:
                if not await session.setup_remote_logging(name, **options.get(name, {})):
                    raise RuntimeError(f"{name} did not start")

        told["starting"] = (await tick_during(start)).as_json()
        await log_rows(session, 0.5)  # what is done once, at the first rows
        lanes = session._trackers.lanes
        if hung in lanes:
            hang(lanes[hung])
        before = {name: lane.sent for name, lane in lanes.items()}
        ticker = await tick_during(partial(log_rows, session, seconds))
        told["live"] = ticker.as_json()
        told["sent"] = {name: (lanes[name].sent - before[name]) / seconds for name in lanes}
        told["threads"] = {"threads": threading.active_count()}
    return told


def _child(loop: str, hung: str, seconds: str, place: str) -> None:
    told: dict[str, dict[str, float]] = {}

    async def main() -> None:
        told.update(await measure(hung, float(seconds), Path(place)))

    run_on(loop, main)
    print(json.dumps(told), flush=True)
    os._exit(0)  # the one that hangs, too


if __name__ == "__main__":
    _child(*sys.argv[2:])
