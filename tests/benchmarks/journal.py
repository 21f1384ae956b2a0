"""What the journal costs: rows until they are durable, bytes, a single call, and memory.

The rows have ten random floats, in dictionaries that are built anew. One child measures the time
of 100,000 of them for keisei and its peers in turns: a loop that only builds the rows; one that
also appends them to a file as JSON; and one that hands them to a thread through a `SimpleQueue`,
which does the same. Another child makes 1,000 calls of a session's `log_metrics` a second and
times each one, in turns with the same two peers. A third logs rows of 5,000 metrics, with the same
names in each and with names of each row's own. A last one logs millions of rows, and looks at its
memory.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from keisei import SessionManager, load_config
from keisei.journal.writer import Journal
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace

ROWS = 100_000
NAMES = [f"train/metric_{number}" for number in range(10)]
CALLS_A_SECOND = 1000
TURNS = 3
WIDE, WIDE_ROWS = 5_000, 50

RowSink = Callable[[dict[str, float], int], object]


def run(*, quick: bool) -> list[Row]:
    """Measure the journal.

    Args:
        quick: take fewer repeats, a shorter time and fewer rows.
    """
    repeats, seconds, many = (2, 2, 1_000_000) if quick else (5, 5, 10_000_000)
    speeds: list[dict[str, float]] = []
    calls: list[dict[str, dict[str, float]]] = []
    wide: list[dict[str, dict[str, float]]] = []
    with workplace() as home:
        environ = child_environment(home)
        for repeat in range(repeats):
            progress(f"journal: {repeat + 1} of {repeats}")
            with workplace() as place:
                speeds.extend(run_child("journal", "speed", place, environ=environ))
                calls.append(run_child("journal", "calls", place, seconds, environ=environ))
                wide.append(run_child("journal", "wide", place, environ=environ))
        progress(f"journal: memory of {many:,} rows")
        with workplace() as place:
            memory = run_child("journal", "memory", place, many, environ=environ)

    def speed(name: str) -> list[float]:
        return [sample[name] for sample in speeds]

    what = "journal, a row of 10 floats until it is durable"
    ours = speed("keisei")
    rows = [
        row(f"{what}, against building it", ours, speed("build"), unit="us", ratio_at_most=2.5),
        row(f"{what}, against json and append", ours, speed("json"), unit="us"),
        row(f"{what}, against json behind a SimpleQueue", ours, speed("queue"), unit="us"),
        row("journal, a row of 10 floats: bytes", speed("bytes"), unit="", at_most=200),
    ]
    targets = {"p50": ("us", 1.5), "p99": ("us", 6.0), "longest": ("ms", 5.0)}
    peers = {"json": "json and append", "queue": "a SimpleQueue"}
    for (name, (unit, target)), peer in itertools.product(targets.items(), peers):
        ours, theirs = ([sample[side][name] for sample in calls] for side in ("keisei", peer))
        shown = f"session.log_metrics, {CALLS_A_SECOND:,} a second, against {peers[peer]}: {name}"
        rows.append(row(shown, ours, theirs, unit=unit, at_most=target))
    for names, target in (("the same names", 0.5), ("names of its own", 3.0)):
        shown = f"journal, a row of {WIDE:,} metrics, {names}"
        taken, size = ([sample[names][value] for sample in wide] for value in ("p50", "bytes"))
        rows.append(row(f"{shown}: the call, p50", taken, unit="ms", at_most=target))
        rows.append(row(f"{shown}: bytes", size, unit="KiB", at_most=58.6))  # 60 KB
    if memory is not None:
        shown = f"journal, {many:,} rows: memory of the second half"
        rows.append(row(shown, [memory], unit="KiB", at_most=4096))
    return rows


def _built(count: int) -> Iterator[tuple[dict[str, float], int]]:
    """Build rows of random floats."""
    draw = random.Random(1).random
    for step in range(count):
        yield {name: draw() for name in NAMES}, step


def _time(sink: RowSink, finish: Callable[[], object]) -> float:
    rows = _built(ROWS)
    started = perf_counter()
    for metrics, step in rows:
        sink(metrics, step)
    finish()
    return (perf_counter() - started) / ROWS


def _build() -> float:
    rows = _built(ROWS)
    started = perf_counter()
    for _metrics, _step in rows:
        pass
    return (perf_counter() - started) / ROWS


def _keisei(place: Path) -> tuple[float, float]:
    journal = Journal(str(place), 1)
    taken = _time(journal.log_metrics, journal.flush)
    size = journal.counters.bytes / ROWS
    journal.close()
    os.unlink(journal.path)
    return taken, size


@contextmanager
def _json(place: Path) -> Iterator[tuple[RowSink, Callable[[], object]]]:
    """Yield a call that appends a row to a file as JSON, and one that ends it."""
    with (place / "rows.jsonl").open("w", encoding="utf-8") as file:

        def sink(metrics: dict[str, float], step: int) -> None:
            file.write(json.dumps({**metrics, "_step": step, "_time": time.time()}) + "\n")

        yield sink, file.flush


@contextmanager
def _queue(place: Path) -> Iterator[tuple[RowSink, Callable[[], object]]]:
    """Yield a call that hands a row to a thread that appends it, and one that ends it."""
    rows: queue.SimpleQueue[dict[str, float] | None] = queue.SimpleQueue()

    def write() -> None:
        with (place / "queued.jsonl").open("w", encoding="utf-8") as file:
            while (metrics := rows.get()) is not None:
                file.write(json.dumps(metrics) + "\n")

    def sink(metrics: dict[str, float], step: int) -> None:
        rows.put({**metrics, "_step": step, "_time": time.time()})

    def finish() -> None:
        rows.put(None)
        thread.join()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield sink, finish
    finally:
        finish()


def _speed(place: Path) -> list[dict[str, float]]:
    samples = []
    for turn in range(-1, TURNS):  # the first one only warms up
        keisei, size = _keisei(place)
        sample = {"keisei": keisei, "bytes": size, "build": _build()}
        for name, peer in (("json", _json), ("queue", _queue)):
            with peer(place) as (sink, finish):
                sample[name] = _time(sink, finish)
        if turn >= 0:
            samples.append(sample)
    return samples


def _calls(place: Path, seconds: int) -> dict[str, dict[str, float]]:
    """Time calls, between which the program computes, as a training step does."""
    config = load_config(overrides={"logging": {"log_dir": str(place), "run_name": "calls"}})
    with SessionManager(config) as session, _json(place) as (append, _), _queue(place) as (put, _):
        sinks: dict[str, RowSink] = {"keisei": session.log_metrics, "json": append, "queue": put}
        taken: dict[str, list[float]] = {name: [] for name in sinks}
        for _, (name, sink) in itertools.product(range(seconds), sinks.items()):
            due = perf_counter()
            for metrics, step in _built(CALLS_A_SECOND):
                due += 1 / CALLS_A_SECOND
                while perf_counter() < due:
                    random.random()
                started = perf_counter()
                sink(metrics, step)
                taken[name].append(perf_counter() - started)
    return {name: _quantiles(sorted(series)) for name, series in taken.items()}


def _quantiles(taken: list[float]) -> dict[str, float]:
    p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    return {"p50": p50, "p99": p99, "longest": taken[-1]}


def _wide(place: Path) -> dict[str, dict[str, float]]:
    """Time calls with rows of many metrics, a row every 5 ms."""
    found = {}
    for attempt, names in enumerate(("the same names", "names of its own"), 1):
        journal = Journal(str(place), attempt)
        taken = []
        for number in range(WIDE_ROWS):
            group = 0 if attempt == 1 else number
            metrics = {f"group{group}/layer/{i}/weight": random.random() for i in range(WIDE)}
            started = perf_counter()
            journal.log_metrics(metrics, number)
            taken.append(perf_counter() - started)
            time.sleep(0.005)
        journal.close()
        found[names] = _quantiles(sorted(taken)) | {"bytes": journal.counters.bytes / WIDE_ROWS}
    return found


def _memory(place: Path, count: int) -> float | None:
    """Return how many bytes the process has grown by in the second half of many rows."""
    if not os.path.exists("/proc/self/statm"):
        return None
    journal = Journal(str(place), 3)
    middle = 0
    for metrics, step in _built(count):
        journal.log_metrics(metrics, step)
        if step == count // 2:
            middle = _resident()
    journal.close()
    return _resident() - middle


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _child(what: str, place: str, *numbers: str) -> None:
    result: Any
    if what == "speed":
        result = _speed(Path(place))
    elif what == "calls":
        result = _calls(Path(place), int(numbers[0]))
    elif what == "wide":
        result = _wide(Path(place))
    else:
        result = _memory(Path(place), int(numbers[0]))
    print(json.dumps(result))


if __name__ == "__main__":
    _child(*sys.argv[2:])
