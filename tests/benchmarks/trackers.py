"""How long the loop is held while four trackers are live, and one of them hangs.

A session gets 10,000 rows of ten floats a second. TensorBoard, MLflow (SQLite), Trackio and W&B
(offline) follow it, the trackers taking turns in hanging: one's `send` never returns. Before that
the same process shows the same loop: idle, with the rows but without trackers, and so with two busy
processes of low priority beside it, which four host processes on two cores are compared with.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from keisei import AppConfig, AsyncSessionManager, load_config
from tests.benchmarks import foreign
from tests.benchmarks.measure import (
    Row,
    busy,
    child_environment,
    progress,
    row,
    run_child,
    workplace,
)
from tests.benchmarks.sinks import built
from tests.benchmarks.ticker import PERIOD, run_on, tick_during

TRACKERS = ("tensorboard", "mlflow", "trackio", "wandb")
ROWS_A_SECOND = 10_000
PHASES = {
    "idle": "an idle loop",
    "logging": "10,000 rows a second, no trackers",
    "beside": "the same with two busy processes beside it",
    "starting": "four trackers start",
    "live": "10,000 rows a second, four trackers, one of which hangs",
}
VALUES = {"p99": "p99 lag", "longest": "longest stall"}


def run(*, quick: bool) -> list[Row]:
    """Measure the stalls.

    Args:
        quick: let one tracker hang on each loop, not each of them, and take a shorter time.
    """
    seconds = 3 if quick else 10
    sides = [(loop, hung) for loop in ("asyncio", "uvloop", "trio") for hung in TRACKERS]
    if quick:
        sides = [("asyncio", "mlflow"), ("asyncio", "wandb"), ("uvloop", "trackio")]
        sides += [("trio", "tensorboard")]
    samples: dict[str, list[dict[str, dict[str, float]]]] = {}
    with workplace() as home:
        environ = child_environment(home)
        with workplace() as place:  # the first one only warms the caches
            run_child("trackers", "asyncio", "wandb", 0.5, place, environ=environ)
        for loop, hung in sides:
            progress(f"trackers: {loop}, {hung} hangs")
            with workplace() as place:
                measured = run_child("trackers", loop, hung, seconds, place, environ=environ)
            samples.setdefault(loop, []).append(measured)
    rows = []
    for loop, measurements in samples.items():
        for phase, what in PHASES.items():
            peer = {"idle": None, "logging": "idle", "beside": "logging"}.get(phase, "beside")
            for value, shown in VALUES.items():
                rows.append(
                    row(
                        f"{what}, {loop}: {shown}" + (f", against {peer!r}" if peer else ""),
                        [measured[phase][value] for measured in measurements],
                        [measured[peer][value] for measured in measurements] if peer else (),
                        unit="ms",
                        ratio_at_most=1.5 if (phase, value) == ("live", "p99") else None,
                        at_most=15.0 if (phase, value) == ("live", "longest") else None,
                    )
                )
    return rows


def options_in(place: Path) -> dict[str, dict[str, Any]]:
    """Return the trackers' options, so that each keeps what it gets in a directory.

    Args:
        place: the directory.
    """
    os.environ["TRACKIO_DIR"] = str(place / "trackio")
    options: dict[str, dict[str, Any]] = {name: {} for name in TRACKERS}
    options["mlflow"] = {"tracking_uri": f"sqlite:///{place}/mlflow.db"}
    options["wandb"] = {"mode": "offline"}
    return options


def config_in(place: Path) -> AppConfig:
    """Return a config whose runs live in a directory, and end soon where a tracker hangs.

    Args:
        place: the directory.
    """
    return load_config(
        overrides={
            "logging": {"log_dir": str(place), "log_level": "critical"},
            "tracking": {"finish_timeout": 1.0, "linger": 0.0},
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
    found = {"idle": (await tick_during(partial(anyio.sleep, seconds))).as_json()}
    async with AsyncSessionManager(config_in(place)) as session:
        found["logging"] = (await tick_during(partial(log_rows, session, seconds))).as_json()
        with busy(2):
            found["beside"] = (await tick_during(partial(log_rows, session, seconds))).as_json()
    options = options_in(place)
    foreign.install(place / "site", ["hanging"])
    sys.path.append(str(place / "site"))
    async with AsyncSessionManager(config_in(place)) as session:

        async def start() -> None:
            for name in TRACKERS:
                if name == hung:
                    wrapped = {"inner": name, "options": options[name], "hangs": True}
                    live = await session.setup_remote_logging("hanging", **wrapped)
                else:
                    live = await session.setup_remote_logging(name, **options[name])
                if not live:
                    raise RuntimeError(f"{name} did not start")

        found["starting"] = (await tick_during(start)).as_json()
        await log_rows(session, 0.5)  # what is done once, at the first rows
        before = _sent(session)
        found["live"] = (await tick_during(partial(log_rows, session, seconds))).as_json()
        after = _sent(session)
        found["sent"] = {name: (after[name] - before[name]) / seconds for name in after}
        found["threads"] = {"threads": threading.active_count()}
    return found


def _sent(session: AsyncSessionManager[AppConfig]) -> dict[str, int]:
    """Return by tracker how many records it has got."""
    summary = session.get_session_summary()
    trackers, journal = summary["trackers"], summary["journal"]
    return {name: journal["logged"] - known["behind"] for name, known in trackers.items()}


def _child(loop: str, hung: str, seconds: str, place: str) -> None:
    found: dict[str, dict[str, float]] = {}

    async def main() -> None:
        found.update(await measure(hung, float(seconds), Path(place)))

    run_on(loop, main)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    _child(*sys.argv[2:])
