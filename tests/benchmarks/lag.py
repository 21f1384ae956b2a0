"""Whether the watchdog of a loop is right: stalls of known causes, an idle loop, and its own cost.

The stalls last 20 to 500 ms, at a threshold of 15 ms, in a fresh process for each loop. Own code:
Python that computes, a call that blocks, C code that keeps the GIL while it computes or waits. The
collector: a heap of the size that takes so long. Another thread: C code that keeps the GIL. No CPU:
the program has one CPU, and another process takes it by a real-time priority; where that may not
be, this class is left out. Suspended: the process is stopped, and goes on.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio

from keisei.monitoring.sharing import watch
from keisei.monitoring.watchdog import Stall
from tests.benchmarks.measure import (
    Row,
    child_environment,
    met,
    progress,
    row,
    run_child,
    workplace,
)
from tests.benchmarks.ticker import run_on

LOOPS = ("asyncio", "uvloop", "trio")
THRESHOLD = 0.015
SHORTEST, LONGEST = 0.02, 0.5
DEFAULT = 0.1  # the config's threshold, at which it is to cost little
SLICE = 4.0  # seconds of an idle loop with the watchdog, then without it
UNBLAMED = ("no CPU", "suspended")


def run(*, quick: bool) -> list[Row]:
    """Plant the stalls, and measure an idle loop.

    Args:
        quick: plant fewer.
    """
    each, slices, idle = (8, 2, 20.0) if quick else (67, 6, 120.0)
    rows = []
    with workplace() as home:
        environ = child_environment(home)
        for loop in LOOPS:
            progress(f"lag: planted stalls, {loop}")
            planted = run_child("lag", "planted", loop, each, environ=environ)
            rows += _of_planted(loop, planted)
        for loop in LOOPS:
            progress(f"lag: an idle loop, {loop}")
            cost = run_child("lag", "cost", loop, slices, environ=environ)
            what = f"{loop}, idle, threshold {DEFAULT:g} s"
            rows.append(
                row(f"{what}: CPU of a core, in percent", cost["percent"], unit="", at_most=0.1)
            )
            alarms = run_child("lag", "idle", loop, idle, environ=environ)
            said = ", ".join(f"{seconds:.2f} s {cause}" for seconds, cause in alarms) or "none"
            rows.append(Row(f"{what}: stalls in {idle:.0f} s", said, target="none"))
    return rows


def _of_planted(loop: str, planted: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for cause in sorted({one["cause"] for one in planted}):
        of_cause = [one for one in planted if one["cause"] == cause]
        right = sum(one["right"] for one in of_cause)
        wrong = Counter(f"{one['kind']}: {one['seen']}" for one in of_cause if not one["right"])
        share = right / len(of_cause)
        rows.append(
            Row(
                f"planted, {loop}, {cause}: right frame and class",
                f"{right} of {len(of_cause)}",
                ", ".join(f"{count} {what}" for what, count in wrong.items()),
                f"{share:.1%}",
                ">= 95%",
                met(share >= 0.95),
            )
        )
    return rows


@dataclass
class Plant:
    """A stall that was planted.

    Attributes:
        cause: its cause.
        kind: how.
        function: who is to blame.
        began: when it began, by the monotonic clock.
        ended: when it had ended.
        disturbed: how long who is to blame had no CPU meanwhile, where that is not the cause.
    """

    cause: str
    kind: str
    function: str
    began: float
    ended: float
    disturbed: float


def compute(seconds: float) -> None:
    """Compute in Python."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def block(seconds: float) -> None:
    """Block, without the GIL."""
    time.sleep(seconds)


def keep_computing(seconds: float) -> None:
    """Compute in C, with the GIL."""
    sum(range(int(RATE * seconds)))


def keep_waiting(seconds: float) -> None:
    """Wait in C, with the GIL."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def collect(seconds: float) -> None:
    """Let the collector go over the heap that was made for it."""
    gc.collect()


def _rate() -> float:
    """Return how many numbers C adds up in a second."""
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        sum(range(1_000_000))
        best = max(best, 1_000_000 / (time.perf_counter() - began))
    return best


def _heap_rate() -> float:
    """Return how many pairs of lists the collector goes over in a second."""
    heap: list[object] = [[[], []] for _ in range(10 * PIECE)]
    began = time.perf_counter()
    gc.collect()
    return len(heap) / (time.perf_counter() - began)


PIECE = 20_000
RATE = HEAP_RATE = 0.0
OWN = (compute, block, keep_computing, keep_waiting)
_SPIN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
print(flush=True)
for line in sys.stdin:
    until = time.perf_counter() + float(line)
    while time.perf_counter() < until:
        pass
    print(flush=True)
"""
_STOP = """
import os, signal, sys, time
print(flush=True)
for line in sys.stdin:
    os.kill(int(sys.argv[1]), signal.SIGSTOP)
    time.sleep(float(line))
    os.kill(int(sys.argv[1]), signal.SIGCONT)
    print(flush=True)
"""


class Helper:
    """A process that takes the CPU, or stops this process, when it is asked to.

    Args:
        code: what it runs.
        argument: what it is given.

    Attributes:
        ready: whether it may do it here.
    """

    def __init__(self, code: str, argument: int) -> None:
        command = [sys.executable, "-I", "-S", "-c", code, str(argument)]
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self.ready = self._process.stdout.readline() == b"\n"

    async def __call__(self, seconds: float) -> None:
        """Ask it, and wait until it is done."""
        self._process.stdin.write(f"{seconds}\n".encode())
        self._process.stdin.flush()
        await anyio.to_thread.run_sync(self._process.stdout.readline)

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


async def _planted(each: int) -> list[dict[str, Any]]:
    global RATE, HEAP_RATE
    RATE = _rate()
    gc.disable()
    gc.freeze()
    HEAP_RATE = _heap_rate()
    heard: list[Stall] = []
    plants: list[Plant] = []
    dice = random.Random(7)
    cpus = sorted(os.sched_getaffinity(0))
    stopper = Helper(_STOP, os.getpid())
    spinner = Helper(_SPIN, cpus[-1])
    listener = watch(THRESHOLD, heard.append)
    idle_threads = [threading.Thread(target=_idle_thread, daemon=True) for _ in range(3)]
    for thread in idle_threads:
        thread.start()
    kinds: list[Callable[[float], Any]] = [*OWN] * math.ceil(each / len(OWN))
    turns = [
        (cause, kinds[number] if cause == "own code" else None)
        for cause in ("own code", "garbage collection", "another thread with the GIL", *UNBLAMED)
        for number in range(each)
        if cause != "no CPU" or spinner.ready
    ]
    dice.shuffle(turns)
    try:
        for cause, own in turns:
            seconds = SHORTEST * (LONGEST / SHORTEST) ** dice.random()
            for _ in range(5):  # what others have disturbed is no stall of that cause
                plant = await _plant(cause, own, seconds, stopper, spinner, cpus)
                await anyio.sleep(0.05 + 0.05 * dice.random())
                if SHORTEST < plant.ended - plant.began > 5 * plant.disturbed:
                    break
            plants.append(plant)
    finally:
        stopper.end()
        spinner.end()
        listener.stop()
    return [_judged(plant, heard) for plant in plants]


def _idle_thread() -> None:
    """Stand in the program's own code, and hold nobody up."""
    while True:
        time.sleep(1.0)


async def _plant(
    cause: str,
    own: Callable[[float], Any] | None,
    seconds: float,
    stopper: Helper,
    spinner: Helper,
    cpus: list[int],
) -> Plant:
    kind, function = cause, ""
    heap: list[object] = []
    if cause == "garbage collection":
        heap = await _heap(seconds)
    began, disturbed = time.monotonic(), 0.0
    if own is not None:
        kind = function = own.__name__
        disturbed = _done(own, seconds)
    elif cause == "garbage collection":
        function = collect.__name__
        disturbed = _done(collect, seconds)
    elif cause == "another thread with the GIL":
        holder = random.choice((keep_computing, keep_waiting))
        kind = function = holder.__name__
        disturbed = await anyio.to_thread.run_sync(_done, holder, seconds)
    elif cause == "no CPU":
        os.sched_setaffinity(0, {cpus[-1]})
        await spinner(seconds)
        os.sched_setaffinity(0, cpus)
    else:
        await stopper(seconds)
    plant = Plant(cause, kind, function, began, time.monotonic(), disturbed)
    while heap:
        del heap[-PIECE:]
        await anyio.sleep(0)
    return plant


def _done(stall: Callable[[float], None], seconds: float) -> float:
    """Hold the loop, or the GIL, and return for how long it was kept from it, in seconds."""
    began, computed = time.perf_counter(), time.thread_time()
    stall(seconds)
    took = time.perf_counter() - began
    waits = stall in (block, keep_waiting)
    return took - (seconds if waits else time.thread_time() - computed)


async def _heap(seconds: float) -> list[object]:
    """Return what the collector needs so long for, made piece by piece."""
    heap: list[object] = []
    for _ in range(int(seconds * HEAP_RATE / PIECE) + 1):
        heap.extend([[], []] for _ in range(PIECE))
        await anyio.sleep(0)
    await anyio.sleep(0.05)
    return heap


def _judged(plant: Plant, heard: list[Stall]) -> dict[str, Any]:
    """Return what was heard of a stall that was planted: the longest that overlaps it."""

    def shared(stall: Stall) -> float:
        return min(plant.ended, stall.began + stall.seconds) - max(plant.began, stall.began)

    stall = max(heard, key=shared, default=None)
    if stall is None or shared(stall) <= 0:
        return {**vars(plant), "right": False, "seen": "nothing"}
    function = "" if stall.frame is None else stall.frame.function
    right = stall.cause == plant.cause and function.endswith(plant.function)
    seen = f"{stall.cause} in {function or None}"
    return {**vars(plant), "right": right, "seen": seen, "seconds": stall.seconds}


async def _cost(slices: int) -> dict[str, list[float]]:
    """Return the CPU time of a core, in percent, that the watchdog of an idle loop takes."""
    percent = []
    await anyio.sleep(0.5)
    for _ in range(slices):
        used = []
        for watched in (False, True):
            listener = watch(DEFAULT, lambda _: None) if watched else None
            began, cpu = time.monotonic(), time.process_time()
            await anyio.sleep(SLICE)
            used.append((time.process_time() - cpu) / (time.monotonic() - began))
            if listener is not None:
                listener.stop()
                await anyio.sleep(0.1)
        percent.append(100 * (used[1] - used[0]))
    return {"percent": percent}


async def _idle(seconds: float) -> list[tuple[float, str]]:
    """Return the stalls of a loop that does nothing."""
    heard: list[Stall] = []
    listener = watch(DEFAULT, heard.append)
    await anyio.sleep(seconds)
    listener.stop()
    return [(stall.seconds, stall.cause) for stall in heard]


def main(what: str, loop: str, number: str) -> None:
    """Run the part of a child, and print what it has found as JSON."""
    found: list[Any] = []

    async def run_it() -> None:
        if what == "planted":
            found.append(await _planted(int(number)))
        elif what == "cost":
            found.append(await _cost(int(number)))
        else:
            found.append(await _idle(float(number)))

    with suppress(AttributeError, OSError):  # others are not to disturb it, where that is allowed
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    run_on(loop, run_it)
    print(json.dumps(found[0]))


if __name__ == "__main__":
    main(*sys.argv[2:])
