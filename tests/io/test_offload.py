"""Foreign calls with a timeout, and our own work that is done whole, or not at all."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from functools import partial

import anyio
import pytest

from keisei._io import files
from keisei._io.offload import THREADS, Work, offload, patiently
from tests.support.forks import in_child


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


class Waited:
    """A piece of work, and somebody who waits for it patiently."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.steps: list[str] = []
        self.work = Work(self._run)

    def _run(self) -> str:
        self.go.wait(30)
        self.steps.append("done")
        return "result"

    async def wait(self) -> None:
        """Wait for the work, and note that its end was seen."""
        try:
            await patiently(self.work.result, timeout=30)
        finally:
            self.steps.append("seen")


async def test_work_is_done_and_a_cancellation_let_through_after_it() -> None:
    """A cancelled scope does not end the wait; its caller does not go on."""
    waited = Waited()
    with anyio.CancelScope() as scope:
        scope.cancel()
        waited.go.set()
        await waited.wait()
        waited.steps.append("caller")
    assert waited.steps == ["done", "seen"]
    assert scope.cancelled_caught


@pytest.mark.parametrize("cancels", [1, 3, 20])
def test_work_survives_plain_cancels(cancels: int) -> None:
    """`Task.cancel()`, however often, stops the caller and not the work."""
    waited = Waited()

    async def main() -> None:
        task = asyncio.create_task(waited.wait())
        await asyncio.sleep(0)
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
        assert waited.steps == []
        waited.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert waited.steps == ["done", "seen"]


async def test_a_patient_wait_has_a_timeout() -> None:
    """A shield is no reason to wait for ever."""
    with pytest.raises(TimeoutError):
        await patiently(anyio.sleep_forever, timeout=0.02)


async def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    """No group is wrapped around it."""

    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await patiently(Work(fail).result, timeout=10)


async def test_hung_work_does_not_hold_up_other_work() -> None:
    """What is left, begun or not, gives its thread to others; few threads do all of it."""
    go = threading.Event()
    hung = [Work(lambda: go.wait(30)) for _ in range(THREADS + 1)]
    begun: list[int] = []
    other = Work(lambda: begun.append(threading.active_count()))
    with anyio.move_on_after(0.05) as too_long:
        await other.result()
    assert too_long.cancelled_caught
    hung[-1].leave()
    hung[0].leave()
    await patiently(other.result, timeout=10)
    assert len(begun) == 1
    go.set()
    for work in hung[:-1]:
        await patiently(work.result, timeout=10)
    with anyio.move_on_after(0.05) as never:
        await hung[-1].result()
    assert never.cancelled_caught


async def test_work_is_done_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An end that nobody records is worse than a caller that waits for it."""

    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        work = Work(lambda: done.append("here"))
        assert done == ["here"]
    await work.result()
    await patiently(Work(lambda: done.append("there")).result, timeout=10)
    assert done == ["here", "there"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_do_its_parents_work() -> None:
    """What waits for a thread is the parent's, and the child's own work is done."""
    go = threading.Event()
    done: list[int] = []
    many = [Work(partial(_note, go, done)) for _ in range(THREADS + 1)]

    def in_the_child() -> str:
        asyncio.run(Work(lambda: done.append(0)).result())
        return str(done)

    assert in_child(in_the_child) == "returned [0]"
    go.set()
    for work in many:
        asyncio.run(work.result())
    assert len(done) == THREADS + 1


def _note(go: threading.Event, done: list[int]) -> None:
    go.wait(30)
    done.append(1)


async def test_a_hop_that_has_not_begun_never_begins() -> None:
    """A caller that is cancelled while it waits for a turn leaves nothing behind."""
    go, begun = threading.Event(), threading.Event()
    late: list[str] = []

    def first() -> None:
        begun.set()
        go.wait(30)

    async with anyio.create_task_group() as group:
        for _ in range(files.THREADS):
            group.start_soon(files.in_thread, first)
        await anyio.sleep(0)
        async with anyio.create_task_group() as second:
            second.start_soon(files.in_thread, late.append, "begun")
            await anyio.sleep(0)
            second.cancel_scope.cancel()
        go.set()
    assert late == []


async def test_a_hop_that_has_begun_is_done_before_its_caller_goes() -> None:
    """A cancelled caller leaves no function of ours at work."""
    go, begun = threading.Event(), threading.Event()
    steps: list[str] = []

    def work() -> None:
        begun.set()
        go.wait(30)
        steps.append("done")

    async def hop() -> None:
        try:
            await files.in_thread(work)
        finally:
            steps.append("gone")

    async with anyio.create_task_group() as group:
        group.start_soon(hop)
        while not begun.is_set():
            await anyio.sleep(0)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0)
            assert steps == []
            go.set()
    assert steps == ["done", "gone"]
