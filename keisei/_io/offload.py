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
task of its own, which only anyio can cancel, under a shield that has a deadline; the child
carries its outcome by hand, because a task group would wrap its error; and the caller's
cancellation is let through when the work is done.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

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
    outcome = _Outcome[T]()
    token = current_token()
    ended = anyio.Event()
    decided = threading.Event()
    taken = False

    def work() -> None:
        outcome.run(func)
        if not decided.is_set():
            with suppress(RuntimeError):  # the loop has ended, and with it the wait
                anyio.from_thread.run_sync(ended.set, token=token)
        decided.wait()
        if not taken and on_late is not None and outcome.values:
            on_late(outcome.values[0])

    threading.Thread(target=work, name=name, daemon=True).start()
    try:
        with anyio.fail_after(timeout):
            await ended.wait()
        taken = True  # nothing is awaited between here and the return
    finally:
        decided.set()
    return outcome.result()


async def whole(work: Callable[[], Awaitable[T]], *, timeout: float) -> T:
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

    async def child() -> None:
        with anyio.move_on_after(timeout, shield=True):
            try:
                outcome.values.append(await work())
            except Exception as exc:  # noqa: BLE001 - carried to the caller by hand
                outcome.error = exc

    async with anyio.create_task_group() as group:
        group.start_soon(child)
    # On trio a task group whose children are shielded ends without raising the cancellation.
    await checkpoint_if_cancelled()
    if outcome.error is None and not outcome.values:
        raise TimeoutError(f"not done after {timeout:g} s")
    return outcome.result()
