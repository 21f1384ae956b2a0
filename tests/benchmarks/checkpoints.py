"""What saving a checkpoint costs: the caller, the loop beside it, and the disk.

The state is numpy arrays of 64 MiB, 1 GiB in all. One child for each repeat saves it in turns: as
blocking calls on the caller; by `await session.save_checkpoint(...)` in a task, without and with
the copy, where each step of the task is timed, because it holds the loop; and by safetensors'
`save_file` with an fsync of file and directory. What was written is removed after each turn, and
the disk is at rest before the next. How long a copy takes is decided by where its memory comes
from, so what is above it is measured with 16 MiB, many times, in turns with the copy alone. Other
children look at the loop:
a ticker beside the save without the copy, and beside a thread that only writes and syncs the same
bytes, chunk by chunk: what a disk and a second thread cost a loop on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio

from keisei import AsyncSessionManager, load_config
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.content import Facts
from keisei.checkpoints.packing import pack
from tests.benchmarks.measure import (
    Row,
    child_environment,
    progress,
    row,
    run_child,
    workplace,
)
from tests.benchmarks.ticker import tick_during

ARRAY = 64 << 20  # bytes
COUNT = 16
WARM_UP = 1 << 20
SMALL, SMALL_SAVES = 16, 15
CHUNK = 1 << 20
SIDES = ("save", "plain")


def run(*, quick: bool) -> list[Row]:
    """Measure saves.

    Args:
        quick: take fewer repeats, and a quarter of the arrays.
    """
    repeats, count = (2, COUNT // 4) if quick else (5, COUNT)
    saves: list[dict[str, float]] = []
    ticks: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with workplace() as home:
        environ = child_environment(home)
        for repeat in range(repeats):
            progress(f"checkpoints: {repeat + 1} of {repeats}")
            with workplace() as place:
                saves.append(run_child("checkpoints", "saves", place, count, environ=environ))
            for side in SIDES:
                with workplace() as place:
                    measured = run_child("checkpoints", side, place, count, environ=environ)
                    ticks[side].append(measured)

    def series(name: str) -> list[float]:
        return [sample[name] for sample in saves]

    size = f"{count * ARRAY >> 20:,} MiB of numpy"
    above = [sample["held, small"] - sample["copy, small"] for sample in saves]
    return [
        row(
            f"a save of {size}, copy=False: the loop is held, against the same save on the caller",
            series("held"),
            series("on the caller"),
            unit="ms",
            ratio_at_most=1 / 25,
        ),
        row(
            f"a save of {size}: the loop is held, against the copy alone",
            series("held, copied"),
            series("copy"),
            unit="ms",
        ),
        row("a save of 16 MiB: the loop is held, above the copy", above, unit="ms", at_most=1.0),
        row(
            f"a save of {size}, copy=False, bytes a second, against safetensors and fsync",
            [count * ARRAY / taken for taken in series("saved")],
            [count * ARRAY / taken for taken in series("safetensors")],
            unit="MB",
            ratio_at_least=0.9,
        ),
        row(
            f"beside a save of {size}: longest stall, against a thread that only writes",
            [sample["longest"] for sample in ticks["save"]],
            [sample["longest"] for sample in ticks["plain"]],
            unit="ms",
            at_most=2.0,
        ),
        row(
            f"beside a save of {size}: p99 lag, against a thread that only writes",
            [sample["p99"] for sample in ticks["save"]],
            [sample["p99"] for sample in ticks["plain"]],
            unit="ms",
        ),
    ]


class Held:
    """An awaitable that runs a coroutine, and adds up the time in which that holds the loop."""

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self.seconds = 0.0
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, None]:
        send: Callable[[Any], Any] = self._coroutine.send
        value = None
        while True:
            started = perf_counter()
            try:
                waited = send(value)
            except StopIteration:
                return
            finally:
                self.seconds += perf_counter() - started
            try:
                value = yield waited
            except BaseException:
                self._coroutine.close()
                raise


def _state(count: int, size: int = ARRAY) -> dict[str, Any]:
    import numpy

    rng = numpy.random.default_rng(1)
    return {f"layer {number}": rng.random(size // 8) for number in range(count)}


async def _quiet(place: Path) -> None:
    """Remove what was saved, and let the disk come to rest."""
    await anyio.to_thread.run_sync(_clear, place)


def _clear(place: Path) -> None:
    for path in place.rglob("checkpoint_*"):
        shutil.rmtree(path)
    (place / "plain.safetensors").unlink(missing_ok=True)
    os.sync()


def _on_the_caller(place: Path, state: dict[str, Any]) -> None:
    models = place / "models"
    models.mkdir(exist_ok=True)
    with OpenDirectory(str(models)) as directory:
        commit(directory, pack(state, copy=False), Facts("run", 1, 1, None, {}))


def _safetensors(place: Path, state: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    path = place / "plain.safetensors"
    save_file(state, path)
    for opened in (path, place):
        fd = os.open(opened, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


async def _in_a_task(what: Awaitable[object]) -> float:
    """Await something in a task of its own, and return how long it took."""
    started = perf_counter()

    async def task() -> None:
        await what

    async with anyio.create_task_group() as group:
        group.start_soon(task)
    return perf_counter() - started


async def _saves(place: Path, count: int) -> dict[str, float]:
    state = _state(count)
    taken: dict[str, float] = {}
    async with AsyncSessionManager(_config(place), run_name="r") as session:
        await session.save_checkpoint(_state(1, WARM_UP), 0)
        for name, on_caller in (("on the caller", _on_the_caller), ("safetensors", _safetensors)):
            await _quiet(place)
            started = perf_counter()
            on_caller(place, state)
            taken[name] = perf_counter() - started
        for step, name, copy in ((1, "held", False), (2, "held, copied", True)):
            await _quiet(place)
            held = Held(session.save_checkpoint(state, step, copy=copy))
            seconds = await _in_a_task(held)
            taken[name] = held.seconds
            if not copy:
                taken["saved"] = seconds
        await _quiet(place)
        taken["copy"] = _copied(state)
        del state
        small = _state(SMALL, WARM_UP)
        series: dict[str, list[float]] = {"held, small": [], "copy, small": []}
        for step in range(3, 3 + SMALL_SAVES):
            held = Held(session.save_checkpoint(small, step))
            await _in_a_task(held)
            series["held, small"].append(held.seconds)
            series["copy, small"].append(_copied(small))
            await _quiet(place)
    return taken | {name: statistics.median(values) for name, values in series.items()}


def _copied(state: dict[str, Any]) -> float:
    """Return how long it takes to copy a state."""
    started = perf_counter()
    copies = [array.copy() for array in state.values()]
    taken = perf_counter() - started
    del copies
    return taken


async def _beside(place: Path, count: int, *, saving: bool) -> dict[str, float]:
    state = _state(count)
    async with AsyncSessionManager(_config(place), run_name="r") as session:
        await session.save_checkpoint(_state(1, WARM_UP), 0)
        await _quiet(place)

        async def save() -> None:
            if saving:
                await session.save_checkpoint(state, 1, copy=False)
            else:
                await anyio.to_thread.run_sync(_plainly, place, state)

        return (await tick_during(save)).as_json()


def _plainly(place: Path, state: dict[str, Any]) -> None:
    fd = os.open(place / "plain", os.O_WRONLY | os.O_CREAT)
    for array in state.values():
        data = memoryview(array).cast("B")
        for start in range(0, len(data), CHUNK):
            os.write(fd, data[start : start + CHUNK])
    os.fsync(fd)
    os.close(fd)


def _config(place: Path) -> Any:
    return load_config(overrides={"logging.log_dir": str(place)})


def _child(what: str, place: str, count: str) -> None:
    if what == "saves":
        measured = anyio.run(_saves, Path(place), int(count))
    else:
        measured = anyio.run(
            lambda: _beside(Path(place), int(count), saving=what == "save"),
        )
    print(json.dumps(measured))


if __name__ == "__main__":
    _child(*sys.argv[2:])
