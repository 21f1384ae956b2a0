"""Rows per second until they are durable, and a single call: keisei beside what people use.

Every sink has a fresh process in each round, and the rounds go through all of them in turns. The
process starts the sink, logs a few rows that are not counted, and then measures: rows of ten
floats are built and logged, and made durable. The slow ones get fewer rows; what a library does
at its end counts, as nothing is durable before it. For the calls a process makes 1,000 a second,
computes in between, as a training step does, and times each one.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from time import perf_counter

import anyio
from anyio.lowlevel import checkpoint

from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace
from tests.benchmarks.sinks import SINKS, built, installed, size_of

# Fewer of the slow ones: a few seconds of each.
ROWS = {
    "wandb offline": 10_000,
    "trackio": 20_000,
    "mlflow": 100,
    "tensorboardX": 2_000,
    "tensorboard's writer": 10_000,
}
MOST_ROWS = 100_000
WARM_UP = 20
CALLS_A_SECOND = 1000
RATIO_AT_LEAST = {"wandb offline": 40.0, "trackio": 15.0, "building the rows": 0.4}


def run(*, quick: bool) -> list[Row]:
    """Measure rows until they are durable, and their bytes.

    Args:
        quick: take fewer repeats.
    """
    samples = _measure("speed", repeats=1 if quick else 5)
    ours = samples["keisei"]
    rows = [
        row(
            f"rows of 10 floats until durable, a second, against {peer}",
            [sample["rate"] for sample in ours],
            [sample["rate"] for sample in theirs],
            unit="k rows",
            ratio_at_least=RATIO_AT_LEAST.get(peer),
        )
        for peer, theirs in samples.items()
        if peer != "keisei"
    ]
    rows += [
        row(
            f"a row of 10 floats, bytes on the disk, against {peer}",
            [sample["bytes"] for sample in ours],
            [sample["bytes"] for sample in theirs],
            unit="",
        )
        for peer, theirs in samples.items()
        if peer not in ("keisei", "building the rows")
    ]
    return rows


def run_calls(*, quick: bool) -> list[Row]:
    """Measure single calls.

    Args:
        quick: take fewer repeats, and a shorter time.
    """
    samples = _measure("calls", repeats=1 if quick else 3, number=2 if quick else 5)
    return [
        row(
            f"a call, {CALLS_A_SECOND:,} a second, against {peer}: {name}",
            [sample[name] for sample in samples["keisei"]],
            [sample[name] for sample in theirs],
            unit=unit,
        )
        for peer, theirs in samples.items()
        if peer not in ("keisei", "building the rows")
        for name, unit in (("p50", "us"), ("p99", "us"), ("longest", "ms"))
    ]


def _measure(what: str, repeats: int, number: int = 0) -> dict[str, list[dict[str, float]]]:
    """Let all sinks be measured in turns.

    Args:
        what: `speed` or `calls`.
        repeats: how many rounds.
        number: how many seconds of calls.
    """
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in installed()}
    with workplace() as home:
        environ = child_environment(home)
        for repeat in range(repeats):
            for name, series in samples.items():
                progress(f"{what}: {name}, {repeat + 1} of {repeats}")
                many = number or ROWS.get(name, MOST_ROWS)
                with workplace() as place:
                    series.append(run_child("peers", what, name, place, many, environ=environ))
    return samples


async def _speed(name: str, place: Path, count: int) -> dict[str, float]:
    async with SINKS[name](place) as (log, finish):
        for metrics, step in built(WARM_UP):
            log(metrics, step)
        before = size_of(place)
        rows = built(count)
        started = perf_counter()
        for metrics, step in rows:
            log(metrics, step + WARM_UP)
            if step % 1000 == 0:
                await checkpoint()
        await finish()
        taken = perf_counter() - started
    return {"rate": count / taken, "bytes": (size_of(place) - before) / count}


async def _calls(name: str, place: Path, seconds: int) -> dict[str, float]:
    taken = []
    async with SINKS[name](place) as (log, finish):
        for metrics, step in built(WARM_UP):
            log(metrics, step)
        due = perf_counter()
        end = due + seconds
        for metrics, step in built(seconds * CALLS_A_SECOND):
            due += 1 / CALLS_A_SECOND
            while perf_counter() < due:
                random.random()
            started = perf_counter()
            log(metrics, step + WARM_UP)
            taken.append(perf_counter() - started)
            if taken[-1] + started > end:  # it cannot keep up
                break
        await finish()
    taken.sort()
    p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    return {"p50": p50, "p99": p99, "longest": taken[-1]}


def _child(what: str, name: str, place: str, number: str) -> None:
    measure = {"speed": _speed, "calls": _calls}[what]
    print(json.dumps(anyio.run(measure, name, Path(place), int(number))))


if __name__ == "__main__":
    _child(*sys.argv[2:])
