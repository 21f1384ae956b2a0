"""Foreign calls at arm's length, and our own work made whole."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import anyio
import pytest

from keisei._io.offload import offload, whole


class Foreign:
    """A blocking call that ends when the test says so."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.release = threading.Event()
        self.late: list[str] = []
        self.closed = threading.Event()

    def call(self) -> str:
        """Block until released."""
        self.started.set()
        self.release.wait(30)
        return "result"

    def close(self, result: str) -> None:
        """Take a result that nobody waits for."""
        self.late.append(result)
        self.closed.set()


async def test_a_result_in_time_is_returned_and_not_late() -> None:
    """The caller gets it; `on_late` is not called; no thread is left."""
    foreign = Foreign()
    foreign.release.set()
    assert await offload(foreign.call, timeout=10, on_late=foreign.close, name="kf") == "result"
    for thread in [t for t in threading.enumerate() if t.name == "kf"]:
        await anyio.to_thread.run_sync(thread.join, 10)
    assert foreign.late == []


async def test_an_error_of_the_call_is_raised_as_it_is() -> None:
    """No group and no other type is wrapped around it."""

    def fail() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        await offload(fail, timeout=10)


@pytest.mark.requirement("WB-4", "WB-8")
async def test_a_call_past_its_deadline_is_left_and_its_late_result_closed() -> None:
    """The wait ends on time, and the late result goes to `on_late`, once, on a daemon thread."""
    foreign = Foreign()
    with pytest.raises(TimeoutError):
        await offload(foreign.call, timeout=0.05, on_late=foreign.close, name="kl")
    assert foreign.late == []
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "kl")
    foreign.release.set()
    assert await anyio.to_thread.run_sync(foreign.closed.wait, 10)
    assert foreign.late == ["result"]


@pytest.mark.requirement("WB-8")
async def test_a_cancelled_wait_leaves_the_call_and_closes_its_result() -> None:
    """A scope's cancellation ends the wait at once."""
    foreign = Foreign()

    async def wait() -> None:
        await offload(foreign.call, timeout=30, on_late=foreign.close)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        while not foreign.started.is_set():
            await anyio.sleep(0)
        group.cancel_scope.cancel()
    foreign.release.set()
    assert await anyio.to_thread.run_sync(foreign.closed.wait, 10)


@pytest.mark.requirement("WB-8")
def test_a_loop_that_has_ended_closes_the_late_result() -> None:
    """Also where the loop of the caller is gone when the call ends."""
    foreign = Foreign()

    async def main() -> None:
        task = asyncio.create_task(offload(foreign.call, timeout=30, on_late=foreign.close))
        while not foreign.started.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    foreign.release.set()
    assert foreign.closed.wait(10)


@pytest.mark.requirement("WB-8")
async def test_no_result_is_ever_lost_or_taken_twice() -> None:
    """Whatever the moment of the deadline, a result is either returned or closed."""
    outcomes = []

    async def race(delay: float) -> None:
        gone: list[int] = []
        got: list[int] = []
        ended = threading.Event()

        def call() -> int:
            time.sleep(delay)
            return 1

        def late(result: int) -> None:
            gone.append(result)
            ended.set()

        try:
            got.append(await offload(call, timeout=0.01, on_late=late))
        except TimeoutError:
            await anyio.to_thread.run_sync(ended.wait, 10)
        outcomes.append((len(got), len(gone)))

    async with anyio.create_task_group() as group:
        for number in range(60):
            group.start_soon(race, 0.008 + number * 0.0001)
    assert len(outcomes) == 60
    assert {got + gone for got, gone in outcomes} == {1}


@pytest.mark.requirement("FIN-2")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hung_call_does_not_hold_the_process(backend: str) -> None:
    """The process ends while the call still hangs."""
    code = (
        "import anyio, sys, time\n"
        "from keisei._io.offload import offload\n"
        "async def main():\n"
        "    try: await offload(lambda: time.sleep(600), timeout=0.1)\n"
        "    except TimeoutError: print('left', flush=True)\n"
        "anyio.run(main, backend=sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=os.environ)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


async def test_whole_work_is_finished_and_the_cancellation_let_through() -> None:
    """The work runs to its end under a cancelled scope; its caller does not."""
    steps = []

    async def work() -> None:
        steps.append("begun")
        for _ in range(5):
            await anyio.sleep(0)
        steps.append("done")

    with anyio.CancelScope() as scope:
        scope.cancel()
        await whole(work, timeout=10)
        steps.append("caller")
    assert steps == ["begun", "done"]
    assert scope.cancelled_caught


@pytest.mark.parametrize("cancels", [1, 3, 20])
def test_whole_work_survives_plain_cancels(cancels: int) -> None:
    """`Task.cancel()`, however often, stops the caller and not the work."""
    steps = []

    async def work() -> None:
        for _ in range(30):
            await asyncio.sleep(0)
        steps.append("done")

    async def main() -> None:
        task = asyncio.create_task(whole(work, timeout=10))
        await asyncio.sleep(0)
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert steps == ["done"]


async def test_whole_work_has_a_deadline() -> None:
    """A shield is no reason to wait for ever."""
    with pytest.raises(TimeoutError):
        await whole(anyio.sleep_forever, timeout=0.02)


async def test_an_error_of_whole_work_is_raised_as_it_is() -> None:
    """No group is wrapped around it."""

    async def work() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await whole(work, timeout=10)
