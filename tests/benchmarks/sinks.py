"""Where the benchmarks' rows go: keisei's session, and what programs use instead of it.

Each is an async context manager around a directory. It gives a function that takes a row, and one
that returns when the rows are durable: with the system, or as far as the library promises.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from keisei import AsyncSessionManager, load_config

Log = Callable[[dict[str, float], int], object]
Finish = Callable[[], Awaitable[None]]
Sink = Callable[[Path], AbstractAsyncContextManager[tuple[Log, Finish]]]

NAMES = [f"train/metric_{number}" for number in range(10)]


def built(count: int) -> Iterator[tuple[dict[str, float], int]]:
    """Build rows of ten random floats, in dictionaries that are made anew."""
    draw = random.Random(1).random
    for step in range(count):
        yield {name: draw() for name in NAMES}, step


def size_of(place: Path) -> int:
    """Return the bytes of all files below a directory."""
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


@asynccontextmanager
async def building(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """The loop that only builds the rows."""
    yield lambda metrics, step: None, _finishing(lambda: None)


@asynccontextmanager
async def keisei(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """A session without trackers; `flush` tells that the rows are durable."""
    config = load_config(overrides={"logging": {"log_dir": str(place), "log_level": "error"}})
    async with AsyncSessionManager(config) as session:
        yield session.log_metrics, session.flush
        counts = session.get_session_summary()["journal"]
    if counts["written"] != counts["logged"]:
        raise RuntimeError(f"rows are missing: {counts}")


@asynccontextmanager
async def json_append(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """A JSON object per row, appended to a buffered file."""
    with (place / "rows.jsonl").open("w", encoding="utf-8") as file:

        def log(metrics: dict[str, float], step: int) -> None:
            file.write(json.dumps({**metrics, "_step": step, "_time": time.time()}) + "\n")

        yield log, _finishing(file.flush)


@asynccontextmanager
async def queued_json(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """The same behind a `SimpleQueue`, in a thread."""
    rows: queue.SimpleQueue[dict[str, float] | None] = queue.SimpleQueue()

    def write() -> None:
        with (place / "rows.jsonl").open("w", encoding="utf-8") as file:
            while (metrics := rows.get()) is not None:
                file.write(json.dumps(metrics) + "\n")

    thread = threading.Thread(target=write)
    thread.start()

    def finish() -> None:
        rows.put(None)
        thread.join()

    yield (
        lambda metrics, step: rows.put({**metrics, "_step": step, "_time": time.time()}),
        _finishing(finish),
    )


@asynccontextmanager
async def wandb_offline(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """W&B offline, durable when its run is finished."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(project="p", dir=str(place), mode="offline", settings=settings)
    yield lambda metrics, step: run.log(metrics, step=step), _finishing(run.finish)


@asynccontextmanager
async def trackio(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """Trackio's local store, durable when its run is finished."""
    os.environ["TRACKIO_DIR"] = str(place)
    sdk: Any = importlib.import_module("trackio")
    sdk.init("p", embed=False, auto_log_cpu=False, auto_log_gpu=False)
    yield lambda metrics, step: sdk.log(metrics, step=step), _finishing(sdk.finish)


@asynccontextmanager
async def mlflow(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """MLflow with SQLite, one `log_batch` per row; durable when that returns."""
    entities: Any = importlib.import_module("mlflow.entities")
    client: Any = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{place}/mlflow.db")
    experiment = client.create_experiment("p", artifact_location=str(place))
    run_id = client.create_run(experiment).info.run_id

    def log(metrics: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        values = [entities.Metric(name, value, now, step) for name, value in metrics.items()]
        client.log_batch(run_id, values)

    yield log, _finishing(lambda: client.set_terminated(run_id))


@asynccontextmanager
async def tensorboardx(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """TensorBoardX, one `add_scalar` per metric; durable when the writer is closed."""
    writer: Any = importlib.import_module("tensorboardX").SummaryWriter(str(place))

    def log(metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    yield log, _finishing(writer.close)


@asynccontextmanager
async def tensorboard(place: Path) -> AsyncIterator[tuple[Log, Finish]]:
    """TensorBoard's own writer and its thread, one event per row; durable when it is closed."""
    protos: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
    module: Any = importlib.import_module("tensorboard.summary.writer.event_file_writer")
    writer = module.EventFileWriter(str(place))

    def log(metrics: dict[str, float], step: int) -> None:
        event = protos.Event(wall_time=time.time(), step=step)
        for name, value in metrics.items():
            event.summary.value.add(tag=name, simple_value=value)
        writer.add_event(event)

    yield log, _finishing(writer.close)


def _finishing(finish: Callable[[], object]) -> Finish:
    async def finished() -> None:
        finish()

    return finished


SINKS: dict[str, Sink] = {
    "keisei": keisei,
    "building the rows": building,
    "json and append": json_append,
    "json behind a SimpleQueue": queued_json,
    "wandb offline": wandb_offline,
    "trackio": trackio,
    "mlflow": mlflow,
    "tensorboardX": tensorboardx,
    "tensorboard's writer": tensorboard,
}

PACKAGES = {"tensorboardX": "tensorboardX", "tensorboard's writer": "tensorboard"}
PACKAGES |= {"wandb offline": "wandb", "trackio": "trackio", "mlflow": "mlflow"}


def installed() -> list[str]:
    """Return the names of those sinks whose packages are installed."""
    return [name for name in SINKS if name not in PACKAGES or find_spec(PACKAGES[name])]
