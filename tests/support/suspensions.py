"""Interrupt an operation at its first suspension, at its second, and so on to its last.

A task can only be cancelled where it is suspended, and a loop only notices a signal between two
steps of its tasks. So an operation that is interrupted at each of its suspensions in turn has
been interrupted everywhere. What happens there is the user's: a hook.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

import trio
from anyio.lowlevel import current_token

T = TypeVar("T")

Hook = Callable[[object], None]

FAR_TOO_MANY = 2000


class Stepped(Generic[T]):
    """A coroutine that is stepped by hand, and interrupted at its k-th suspension.

    Await it once, in the task that is to be interrupted. Every yield is passed on as it is, so
    that it works on asyncio, uvloop and trio. A hook that raises, raises in the coroutine, where
    it is suspended.

    Args:
        work: the coroutine.
        k: the suspension to interrupt it at, counted from 1.
        hook: called there, once, before the yield is passed on, with what is yielded.
        watch: called at every suspension, after the hook, with the same.

    Attributes:
        count: how many suspensions there have been.
        ended: whether the coroutine has ended.
    """

    def __init__(
        self, work: Coroutine[Any, Any, T], k: int, hook: Hook, watch: Hook | None = None
    ) -> None:
        self._work = work
        self._k = k
        self._hook = hook
        self._watch = watch
        self.count = 0
        self.ended = False

    @property
    def reached(self) -> bool:
        """Whether there was a k-th suspension, and so an interruption."""
        return self.count >= self._k

    def __await__(self) -> Generator[Any, Any, T]:
        reply: Any = None
        error: BaseException | None = None
        while True:
            try:
                trap = self._work.send(reply) if error is None else self._work.throw(error)
            except StopIteration as end:
                self.ended = True
                value: T = end.value
                return value
            except BaseException:
                self.ended = True
                raise
            reply = error = None
            try:
                self._suspended(trap)
                reply = yield trap
            except BaseException as exc:  # whatever it is, it is meant for the coroutine
                error = exc

    def _suspended(self, trap: object) -> None:
        self.count += 1
        if self.count == self._k:
            self._hook(trap)
        if self._watch is not None:
            self._watch(trap)


async def at_every_suspension(run: Callable[[int], Awaitable[bool]]) -> int:
    """Run an operation with k = 1, 2, 3 and so on, until it ends before its k-th suspension.

    Args:
        run: makes everything anew, runs the operation as `Stepped` with this k, and tells
            whether the k-th suspension was reached.

    Returns:
        At how many suspensions it was interrupted.
    """
    for k in range(1, FAR_TOO_MANY):
        if not await run(k):
            return k - 1
    raise AssertionError(f"an operation that is suspended {FAR_TOO_MANY} times")


def at_once(act: Callable[[], object], trap: object) -> None:
    """Act before the task is suspended."""
    act()


def soon(act: Callable[[], object], trap: object) -> None:
    """Act when the task is suspended, at the loop's next turn: it may race with the wake-up."""
    post()(act)


def post() -> Callable[[Callable[[], object]], object]:
    """Return what has this loop call a function soon; it may be used in any thread."""
    loop = current_token().native_token
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.call_soon_threadsafe
    assert isinstance(loop, trio.lowlevel.TrioToken)
    return loop.run_sync_soon


def as_it_wakes(act: Callable[[], object], trap: object) -> None:
    """Act when what the task waits for has come, before the task has had it (asyncio, uvloop)."""
    if isinstance(trap, asyncio.Future):
        trap.add_done_callback(lambda _: act())  # the task adds its own one later
    else:
        asyncio.get_running_loop().call_soon(act)
