"""The ways in which a task can be cancelled, and what a session does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from keisei import AppConfig, AsyncSessionManager
from keisei._io import files, offload
from keisei.testing import MemoryTracker
from tests.support.suspensions import Stepped, as_it_wakes, at_once, post, soon

Session = AsyncSessionManager[AppConfig]
When = Callable[[Callable[[], object], object], None]


class StepByStep(AsyncSessionManager[AppConfig]):
    """A session with a step of its own, so that its entry takes the steps one by one."""

    async def setup_seeding(self) -> None:
        """Yield to the loop, and seed."""
        await anyio.sleep(0)
        await super().setup_seeding()


class Hops:
    """Watches the functions that keisei runs in threads.

    Attributes:
        at_work: the names of those that are under way or wait for a thread.
        too_late: the names of those that have begun although their caller had gone.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_work: list[str] = []
        self.too_late: list[str] = []
        self._at_an_end: list[Callable[[], object]] = []
        self._hop = files.hop
        self._make_work = make_work = offload.Work.__init__

        def make_watched(
            work: offload.Work[Any], func: Callable[[], Any], *, is_long: bool = False
        ) -> None:
            make_work(work, _Watched(self, func), is_long=is_long)

        monkeypatch.setattr(files, "hop", self._watched)
        monkeypatch.setattr(offload.Work, "__init__", make_watched)

    async def _watched(self, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        call = _Watched(self, func)
        try:
            return await self._hop(call, *args, **kwargs)
        finally:
            call.give_up()

    def unwatched(self, func: Callable[[], Any]) -> None:
        """Run work of the test's own on the threads that do keisei's."""
        self._make_work(offload.Work.__new__(offload.Work), func)

    def as_one_ends(self, act: Callable[[], object], trap: object) -> None:
        """Act when the first of them has ended, just before its result is told to the loop."""
        if self.at_work:
            self._at_an_end.append(partial(post(), act))
        else:
            soon(act, trap)


class _Watched:
    """A function that is run in a thread, and seen doing it."""

    def __init__(self, hops: Hops, func: Callable[..., Any]) -> None:
        self._hops, self._func = hops, func
        self._name = getattr(func, "__name__", repr(func))
        self._begun = self._given_up = False
        hops.at_work.append(self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._begun = True
        if self._given_up:
            self._hops.too_late.append(self._name)
        try:
            return self._func(*args, **kwargs)
        finally:
            self._gone()
            while self._hops._at_an_end:
                self._hops._at_an_end.pop()()

    def give_up(self) -> None:
        """Expect that the function, where it has not begun, never does."""
        self._given_up = True
        if not self._begun:
            self._gone()

    def _gone(self) -> None:
        with suppress(ValueError):
            self._hops.at_work.remove(self._name)


@dataclass
class Case:
    """One session, one operation on it, and one cancellation of that.

    Attributes:
        session: the session.
        k: the suspension to cancel the operation at.
        hops: what the session does in worker threads.
        group: where the operation's neighbours run, which nobody cancels.
        neighbours: what `finalize_session` has given them.
        body: whether the body has come to its end, where the operation has one.
        tracker: a tracker for it.
        cancel: cancels the operation, given what it waits for.
        asked: tells whether the cancellation has been asked for.
        again: cancel at every suspension from the k-th on.
        owed: whether the caller has to see the cancellation.
        error: what the operation raised.
        stepped: the operation.
        over: whether the session has been ended, too.
    """

    session: Session
    k: int
    hops: Hops
    group: TaskGroup
    tracker: MemoryTracker = field(default_factory=MemoryTracker)
    neighbours: list[str] = field(default_factory=list)
    body: bool = False
    cancel: Callable[[object], None] = lambda trap: None
    asked: Callable[[], bool] = lambda: False
    again: bool = False
    owed: bool = False
    error: BaseException | None = None
    over: bool = False
    stepped: Stepped[None] | None = None


async def act_and_end(
    case: Case, operation: Callable[[Case], Awaitable[object]], *, ends: bool
) -> None:
    """Run the operation, and end the session as a program's `finally` does.

    Args:
        case: the case.
        operation: what is stepped, and cancelled.
        ends: whether it has to end the session by itself.
    """

    async def work() -> None:
        await operation(case)

    def watch(trap: object) -> None:
        if case.again and stepped.count > case.k:
            case.cancel(trap)
        case.owed = case.owed or case.asked()

    case.stepped = stepped = Stepped(work(), case.k, lambda trap: case.cancel(trap), watch)
    try:
        await stepped
    except BaseException as exc:
        case.error = exc
        raise
    finally:
        if not ends:
            with anyio.CancelScope(shield=True):
                await case.session.finalize_session()
        case.over = True


Act = Callable[[], Awaitable[None]]
Way = Callable[[Case, Act], Awaitable[bool]]


async def scope(case: Case, act: Act, *, when: When) -> bool:
    """Cancel a scope around it."""
    with anyio.CancelScope() as around:
        case.cancel = partial(when, around.cancel)
        case.asked = lambda: around.cancel_called
        await act()
    return around.cancelled_caught


async def deadline(case: Case, act: Act) -> bool:
    """Move the deadline of a scope around it to this moment."""

    def now(trap: object) -> None:
        around.deadline = anyio.current_time()

    with anyio.move_on_after(None) as around:
        case.cancel = now
        case.asked = lambda: around.cancel_called
        await act()
    return around.cancelled_caught


async def sibling(case: Case, act: Act) -> bool:
    """Crash another task of its group."""
    time_to_crash = anyio.Event()

    async def crash() -> None:
        await time_to_crash.wait()
        raise ZeroDivisionError("the sibling")

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(crash)
            case.cancel = partial(at_once, time_to_crash.set)
            case.asked = lambda: group.cancel_scope.cancel_called
            await act()
            group.cancel_scope.cancel()
    except* ZeroDivisionError:
        pass
    return case.error is not None


async def native(case: Case, act: Act, *, when: When, again: bool = False) -> bool:
    """Cancel its task with asyncio's own `Task.cancel()`, which no shield stops."""

    def cancel() -> None:
        if case.stepped is not None and not case.stepped.ended:
            case.owed = True
            task.cancel()

    case.again = again
    case.cancel = partial(when, cancel)
    task = asyncio.ensure_future(act())
    await asyncio.wait([task])
    return task.cancelled() or bool(task.result())


async def both(case: Case, act: Act) -> bool:
    """Cancel a scope around it and, at the same moment, its task."""

    async def within() -> bool:
        with anyio.CancelScope() as around:
            cancel_task = case.cancel

            def cancel(trap: object) -> None:
                around.cancel()
                cancel_task(trap)

            case.cancel = cancel
            await act()
        return around.cancelled_caught

    return await native(case, within, when=at_once)  # type: ignore[arg-type]


async def timeout(case: Case, act: Act) -> bool:
    """Run out an `asyncio.timeout` around it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as around:
            case.cancel = lambda trap: around.reschedule(loop.time())
            case.asked = around.expired
            await act()
    except TimeoutError:
        return True
    return False


ANYWHERE: dict[str, Way] = {
    "scope": partial(scope, when=at_once),
    "scope, soon": partial(scope, when=soon),
    "scope, with a result": lambda case, act: scope(case, act, when=case.hops.as_one_ends),
    "deadline": deadline,
    "sibling": sibling,
}
ASYNCIO: dict[str, Way] = {
    "scope, as it wakes": partial(scope, when=as_it_wakes),
    "native": partial(native, when=at_once),
    "native, soon": partial(native, when=soon),
    "native, as it wakes": partial(native, when=as_it_wakes),
    "native, with a result": lambda case, act: native(case, act, when=case.hops.as_one_ends),
    "native, impatient": partial(native, when=at_once, again=True),
    "both": both,
    "timeout": timeout,
}


async def everything(case: Case, act: Act, *, when: When) -> bool:
    """Cancel each task that works for it, as `asyncio.run` does with what is left at its end."""
    others = asyncio.all_tasks()

    async def all_of_it() -> None:
        def cancel() -> None:
            if case.stepped is not None and not case.stepped.ended:
                case.owed = True
                for task in asyncio.all_tasks() - others:
                    task.cancel()

        case.cancel = partial(when, cancel)
        await act()

    task = asyncio.create_task(all_of_it())
    await asyncio.wait([task])
    return task.cancelled()


SHUTDOWN: dict[str, Way] = {
    "everything": partial(everything, when=at_once),
    "everything, soon": partial(everything, when=soon),
    "everything, with a result": lambda case, act: everything(
        case, act, when=case.hops.as_one_ends
    ),
}
