"""Our own work that is done whole, or not at all."""

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
from keisei._io.offload import THREADS, Work, patiently
from tests.support.forks import in_child


@pytest.mark.requirement("FIN-2")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_hung_call_does_not_hold_the_process(backend: str) -> None:
    """The process ends while the call still hangs."""
    code = (
        "import anyio, sys, time\n"
        "from keisei._io.offload import Work, patiently\n"
        "async def main():\n"
        "    try: await patiently(Work(lambda: time.sleep(600)).result, timeout=0.1)\n"
        "    except TimeoutError: print('left', flush=True)\n"
        "anyio.run(main, backend=sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr


class Waited:
    """A piece of work, and somebody who waits for it patiently."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.steps: list[str] = []
        self.work = Work(self._run)

    def _run(self) -> str:
        self.go.wait(60)
        self.steps.append("done")
        return "result"

    async def wait(self) -> None:
        """Wait for the work, and note that its end was seen."""
        try:
            await patiently(self.work.result, timeout=60)
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


@pytest.mark.parametrize("how", ["work", "hop"])
async def test_what_was_done_in_time_counts_although_the_loop_was_held(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The program's own code holds the loop past the deadline: what is there then is looked at."""
    begun, held = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        held.wait(60)
        return "done"

    async def hold() -> None:
        while not begun.is_set():
            await anyio.sleep(0)
        held.set()
        time.sleep(0.6)

    monkeypatch.setattr(files, "FILE_TIMEOUT", 0.3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        done = patiently(Work(work).result, timeout=0.3) if how == "work" else files.hop(work)
        assert await done == "done"


async def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    """No group is wrapped around it."""

    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await patiently(Work(fail).result, timeout=60)


async def test_hung_work_does_not_hold_up_other_work() -> None:
    """What is left, begun or not, gives its thread to others; few threads do all of it."""
    go = threading.Event()
    hung = [Work(lambda: go.wait(60)) for _ in range(THREADS + 1)]
    begun: list[int] = []
    other = Work(lambda: begun.append(threading.active_count()))
    with anyio.move_on_after(0.05) as too_long:
        await other.result()
    assert too_long.cancelled_caught
    hung[-1].leave()
    hung[0].leave()
    await patiently(other.result, timeout=60)
    assert len(begun) == 1
    go.set()
    for work in hung[:-1]:
        await patiently(work.result, timeout=60)
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
    await patiently(Work(lambda: done.append("there")).result, timeout=60)
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
    go.wait(60)
    done.append(1)


async def test_a_hop_that_has_not_begun_never_begins() -> None:
    """A caller that is cancelled while it waits for a turn leaves nothing behind."""
    go, begun = threading.Event(), threading.Event()
    late: list[str] = []

    def first() -> None:
        begun.set()
        go.wait(60)

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
        go.wait(60)
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
