"""The watchdog of a loop: it finds what holds the loop, and holds up nobody itself."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import anyio
import pytest

from keisei.monitoring.sharing import Watch, watch
from keisei.monitoring.watchdog import Stall, Watchdog

THRESHOLD = 0.05
LIMIT = 30.0

pytestmark = pytest.mark.anyio


def hold_the_loop(seconds: float) -> None:
    """Block, as a careless program does."""
    time.sleep(seconds)


async def until(found: list[Stall], function: str) -> Stall:
    """Wait for a stall in a function: on a busy machine there are others, too."""
    with anyio.fail_after(LIMIT):
        while True:
            for stall in found:
                if stall.frame is not None and function in stall.frame.function:
                    return stall
            await anyio.sleep(0.01)


async def test_what_holds_the_loop_is_named() -> None:
    """Its function, its line, its cause, and for how long, at each stall."""
    found: list[Stall] = []
    watchdog = Watchdog(THRESHOLD, found.append)
    watchdog.start()
    try:
        await anyio.sleep(2 * THRESHOLD)
        hold_the_loop(0.3)
        stall = await until(found, "hold_the_loop")
        assert stall.frame is not None
        assert stall.frame.file == __file__
        assert stall.cause == "own code"
        assert stall.seconds >= 0.3 - THRESHOLD
        found.clear()
        hold_the_loop(0.3)
        await until(found, "hold_the_loop")
    finally:
        watchdog.stop()


class Counting(Watchdog):
    """Counts how often the loop is called."""

    beats = 0

    def beat(self) -> None:
        """Count it."""
        self.beats += 1
        super().beat()


@pytest.mark.parametrize(
    ("backend", "options"),
    [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})],
    ids=["asyncio", "uvloop", "trio"],
)
def test_an_idle_loop_is_left_alone(backend: str, options: dict[str, bool]) -> None:
    """The watchdog sees that it waits for something to do, and does not wake it at each look."""
    threshold, looks = 0.2, 10

    async def main() -> int:
        watchdog = Counting(threshold, lambda stall: None)
        watchdog.start()
        await anyio.sleep(looks * threshold)
        watchdog.stop()
        return watchdog.beats

    beats = anyio.run(main, backend=backend, backend_options=options)
    assert beats <= looks // 2  # a busy machine keeps it from some looks


async def test_where_the_collector_came_is_named() -> None:
    """Also where the loop has gone on before the watchdog gets the GIL."""
    found: list[Stall] = []
    watchdog = Watchdog(THRESHOLD, found.append)
    watchdog.start()
    try:
        await anyio.sleep(2 * THRESHOLD)
        collect_garbage()
        stall = await until(found, "collect_garbage")
        assert stall.cause == "garbage collection"
    finally:
        watchdog.stop()


def collect_garbage() -> None:
    """Let the collector go over a heap again and again: it counts what it has taken in all."""
    heap: list[list[object]] = [[[]] for _ in range(300_000)]
    for _ in range(5):
        gc.collect()
    del heap


def watchdogs() -> list[threading.Thread]:
    """Return the threads of watchdogs."""
    return [thread for thread in threading.enumerate() if thread.name == "keisei-lag"]


async def none_is_left() -> None:
    """Wait until no watchdog's thread is left."""
    with anyio.fail_after(LIMIT):
        while watchdogs():
            await anyio.sleep(0.01)


async def test_nothing_is_left_of_it() -> None:
    """Neither its thread, nor its callback at the collector, nor a beat in the loop."""
    callbacks = list(gc.callbacks)
    found: list[Stall] = []
    watchdog = Watchdog(THRESHOLD, found.append)
    watchdog.start()
    await anyio.sleep(THRESHOLD)
    watchdog.stop()
    watchdog.stop()
    await none_is_left()
    assert gc.callbacks == callbacks
    hold_the_loop(0.2)
    await anyio.sleep(THRESHOLD)
    assert not any(stall.frame and "hold_the_loop" in stall.frame.function for stall in found)


async def test_a_listener_that_fails_is_called_again() -> None:
    """What it raises ends no watch."""
    found: list[Stall] = []

    def hear(stall: Stall) -> None:
        found.append(stall)
        raise RuntimeError("a listener's own")

    watchdog = Watchdog(THRESHOLD, hear)
    watchdog.start()
    try:
        await anyio.sleep(2 * THRESHOLD)
        for _ in range(2):
            found.clear()
            hold_the_loop(0.2)
            await until(found, "hold_the_loop")
    finally:
        watchdog.stop()


async def test_those_of_one_loop_share_a_watchdog() -> None:
    """A thousand sessions need one thread; each hears of every stall until it stops."""
    await none_is_left()  # of the tests before this one
    heard: list[list[Stall]] = [[] for _ in range(100)]
    stops = [watch(THRESHOLD, one.append) for one in heard]
    assert len(watchdogs()) == 1
    await anyio.sleep(2 * THRESHOLD)
    stops[0].stop()
    hold_the_loop(0.2)
    await until(heard[99], "hold_the_loop")
    assert not any(stall.seconds >= 0.2 - THRESHOLD for stall in heard[0])  # of the load, shorter
    for one in stops:
        one.stop()
    await none_is_left()


def test_a_loop_that_does_not_run_is_not_held() -> None:
    """A loop that is stopped and goes on later was not held up; one that is closed is let go."""
    found: list[Stall] = []
    loop = asyncio.new_event_loop()

    async def start() -> Watch:
        stop = watch(THRESHOLD, found.append)
        await asyncio.sleep(2 * THRESHOLD)
        return stop

    loop.run_until_complete(start())
    thread = watchdogs()[-1]
    hold_the_loop(0.4)
    loop.run_until_complete(asyncio.sleep(2 * THRESHOLD))
    assert not any(stall.frame and "hold_the_loop" in stall.frame.function for stall in found)
    assert not any(stall.seconds > 0.3 for stall in found)
    loop.close()
    thread.join(LIMIT)
    assert not thread.is_alive()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")
def test_a_process_that_stood_still_is_told_apart() -> None:
    """A stopped program blames nobody's code."""
    program = textwrap.dedent(
        """
        import sys, time
        import anyio
        from keisei.monitoring.watchdog import Watchdog

        async def main():
            found = []
            Watchdog(0.05, found.append).start()
            await anyio.sleep(0.2)
            print("ready", flush=True)
            while not any(stall.seconds > 0.8 for stall in found):
                await anyio.sleep(0.01)
            print(next(stall.cause for stall in found if stall.seconds > 0.8))

        anyio.run(main)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGSTOP)
        threading.Event().wait(1.2)  # the time that it stands still is what is tested
        os.kill(process.pid, signal.SIGCONT)
        out, _ = process.communicate(timeout=LIMIT)
    assert out == "suspended\n"
