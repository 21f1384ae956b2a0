"""Run what is not ours where its hang reaches nobody, and finish what is ours whatever happens.

`offload` is for a foreign blocking call. It gets a daemon thread of its own: anyio's and
asyncio's worker threads are joined before the process may end, so one hung call in them holds
the process. The caller waits for it no longer than the deadline.

Why a late result cannot be lost: the thread, when its call has ended, does not end. It wakes the
caller and waits for one decision, which the caller makes on every way out of its wait (in
`finally`): *taken*, or *left*. Left means that nobody will ever see the result, so the thread
itself hands it to `on_late`. There is no third way and no moment between the two.

Why a hung one cannot be felt: nothing but the daemon thread waits for the call.

`whole` is for our own work that must not stop half-way. An anyio shield does not stop a plain
`asyncio.Task.cancel()`, which reaches the task wherever it waits. So the work runs in a child
task of its own, under a shield that has a deadline; the child carries its outcome by hand,
because a task group would wrap its error; and the caller's cancellation is let through when the
work is done.

The child itself can be cancelled, too: the end of `asyncio.run` cancels every task that there is,
and so do programs that shut down. A task is cancelled through the future that it waits for, so
the child never waits for the work's own futures, but for stand-ins (`_Undisturbed`): a stand-in
that is cancelled is replaced by another one, and the work does not see it. A child that is
cancelled before its first step has not begun, and is started again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

import anyio
import anyio.from_thread
from anyio.lowlevel import checkpoint_if_cancelled, current_token

T = TypeVar("T")


class _Outcome(Generic[T]):
    """What a call came to: a value, an error, or nothing yet."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.values: list[T] = []

    def run(self, func: Callable[[], T]) -> None:
        try:
            self.values.append(func())
        except BaseException as exc:  # noqa: BLE001 - foreign code; the error is the caller's
            self.error = exc

    def result(self) -> T:
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # or the traceback would hold itself
        return self.values[0]


class Offloaded(Generic[T]):
    """A foreign blocking call under way on a daemon thread of its own.

    Args:
        func: the call.
        on_late: gets, on that thread, a result that nobody waits for any more.
        name: the thread's name.

    Raises:
        RuntimeError: the system has no thread left.
    """

    def __init__(
        self, func: Callable[[], T], on_late: Callable[[T], object] | None, name: str
    ) -> None:
        self._func = func
        self._on_late = on_late
        self._outcome = _Outcome[T]()
        self._token = current_token()
        self._ended = anyio.Event()
        self._decided = threading.Event()
        self._taken = False
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        self._outcome.run(self._func)
        if not self._decided.is_set():
            with suppress(RuntimeError):  # the loop has ended, and with it the wait
                anyio.from_thread.run_sync(self._ended.set, token=self._token)
        self._decided.wait()
        if not self._taken and self._on_late is not None and self._outcome.values:
            self._on_late(self._outcome.values[0])

    async def result(self, timeout: float) -> T:
        """Wait for the call, once, until the deadline.

        Args:
            timeout: the longest wait, in seconds; the call may go on after it.

        Raises:
            TimeoutError: the deadline passed. What the call itself raises is raised as it is.
        """
        try:
            if not self._ended.is_set():
                with anyio.fail_after(timeout):
                    await self._ended.wait()
            self._taken = True  # nothing is awaited between here and the return
        finally:
            self._decided.set()
        return self._outcome.result()


async def offload(
    func: Callable[[], T],
    *,
    timeout: float,
    on_late: Callable[[T], object] | None = None,
    name: str = "keisei-offload",
) -> T:
    """Run a foreign blocking call on a daemon thread of its own, and wait until the deadline.

    Args:
        func: the call.
        timeout: the longest wait, in seconds; the call may go on after it.
        on_late: gets, on that thread, a result that nobody waits for any more.
        name: the thread's name.

    Returns:
        What the call returned.

    Raises:
        TimeoutError: the deadline passed. What the call itself raises is raised as it is.
        RuntimeError: the system has no thread left.
    """
    return await Offloaded(func, on_late, name).result(timeout)


async def whole(work: Callable[[], Coroutine[Any, Any, T]], *, timeout: float) -> T:
    """Finish our own work although the caller is cancelled, then let the cancellation through.

    Args:
        work: what has to be whole. It records its own effects: a cancelled caller never sees the
            result.
        timeout: the longest that it may take, in seconds.

    Raises:
        TimeoutError: the deadline passed, and the work was cancelled. What the work itself
            raises is raised as it is.
    """
    outcome = _Outcome[T]()
    begun = False

    async def child() -> None:
        nonlocal begun
        begun = True
        with anyio.move_on_after(timeout, shield=True):
            try:
                outcome.values.append(await _Undisturbed(work()))
            except Exception as exc:  # noqa: BLE001 - carried to the caller by hand
                outcome.error = exc

    cancelled: BaseException | None = None
    while not begun:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(child)
        except anyio.get_cancelled_exc_class() as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled
    # On trio a task group whose children are shielded ends without raising the cancellation.
    await checkpoint_if_cancelled()
    if outcome.error is None and not outcome.values:
        raise TimeoutError(f"not done after {timeout:g} s")
    return outcome.result()


class _Undisturbed(Generic[T]):
    """Awaits a coroutine so that no `asyncio.Task.cancel()` reaches it; anyio's scopes do.

    Args:
        work: the coroutine.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, Any, T]:
        if not isinstance(current_token().native_token, asyncio.AbstractEventLoop):
            return (yield from self._work.__await__())  # trio cancels through scopes alone
        error: BaseException | None = None
        while True:
            try:
                waited = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as end:
                value: T = end.value
                return value
            error = yield from self._wait(waited)

    def _wait(
        self, waited: asyncio.Future[Any] | None
    ) -> Generator[Any, Any, BaseException | None]:
        """Wait for what the work waits for; give the cancellation if a scope of anyio's asks."""
        if waited is not None:
            waited._asyncio_future_blocking = False  # as a task does that takes one over
        while True:
            try:
                if waited is None:
                    yield None
                else:
                    stand_in = waited.get_loop().create_future()
                    wake = partial(_wake, stand_in)
                    waited.add_done_callback(wake)
                    try:
                        yield from stand_in
                    finally:
                        waited.remove_done_callback(wake)
                return None
            except asyncio.CancelledError as exc:
                if anyio.current_effective_deadline() <= anyio.current_time():
                    if waited is not None:
                        waited.cancel()
                    return exc
                if waited is None:
                    return None


def _wake(stand_in: asyncio.Future[None], waited: asyncio.Future[Any]) -> None:
    if not stand_in.done():
        stand_in.set_result(None)
