"""Our own blocking work that must not stop half-way, on daemon threads.

A thread cannot be cancelled; only the wait for it can, and that is taken up again (`patiently`)
until the work is done. Nothing else is needed against a plain `asyncio.Task.cancel()`, which passes
through anyio's shields, nor against the end of `asyncio.run`, which cancels every task that there
is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from keisei._io.forks import after_in_child
from keisei._io.loop import ThreadEvent

T = TypeVar("T")

THREADS = 4  # at most, for all the work that is under way at one moment


class Outcome(Generic[T]):
    """What a call has come to: a value, an error, or nothing yet."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.values: list[T] = []

    def run(self, func: Callable[[], T]) -> None:
        """Call a function and keep what it returns or raises."""
        try:
            self.values.append(func())
        except BaseException as exc:  # noqa: BLE001 - the error is the caller's
            self.error = exc

    def result(self) -> T:
        """Return the value, or raise the error; once."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # or the traceback would hold itself
        return self.values[0]


async def patiently(wait: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
    """Wait although the caller is cancelled, then let the cancellation through.

    Args:
        wait: the wait; it is called again after a cancellation that no shield stops.
        timeout: the longest that it may take, in seconds.

    Returns:
        What the wait returned.

    Raises:
        TimeoutError: the time is over. What the wait itself raises is raised as it is.
    """
    cancellations = anyio.get_cancelled_exc_class()
    outcome = Outcome[T]()
    cancelled: BaseException | None = None
    with anyio.CancelScope(deadline=anyio.current_time() + timeout, shield=True) as scope:
        while not outcome.values and outcome.error is None:
            try:
                outcome.values.append(await wait())
            except cancellations as exc:
                if scope.cancel_called:
                    raise
                cancelled = exc
            except Exception as exc:  # noqa: BLE001 - a cancellation goes before it
                outcome.error = exc
    if outcome.error is None and not outcome.values:
        # The deadline has passed; but the work may be done, and only the loop was held so long.
        with anyio.CancelScope(shield=True) as last:
            last.cancel()
            try:
                outcome.values.append(await wait())
            except Exception as exc:  # noqa: BLE001 - as above
                outcome.error = exc
    if cancelled is not None:
        raise cancelled
    await checkpoint_if_cancelled()
    if outcome.error is None and not outcome.values:
        raise TimeoutError(f"not done after {timeout:g} s")
    return outcome.result()


class Call(Generic[T]):
    """A function of our own for any thread, which runs to its end or never begins.

    Args:
        func: the function.

    Attributes:
        ended: set when the function is done.
        outcome: what it has returned or raised by then.
    """

    def __init__(self, func: Callable[[], T]) -> None:
        self._func = func
        self._lock = threading.Lock()
        self._begun = self._given_up = False
        self.ended, self.outcome = ThreadEvent(), Outcome[T]()

    def run(self) -> None:
        """Call the function, unless it was given up before."""
        with self._lock:
            if self._given_up:  # an executor keeps a call that it had no thread for
                raise RuntimeError("nobody waits for this call any more")
            self._begun = True
        self.outcome.run(self._func)
        self.ended.set()

    def give_up(self) -> bool:
        """Prevent the function from beginning; return whether it has begun before."""
        with self._lock:
            self._given_up = True
            return self._begun


class Work(Generic[T]):
    """A blocking function of our own, which a daemon thread runs to its end.

    All the work of a process shares few threads, each of which ends when nothing is left to do.
    Where the system has no thread at all, the function runs here and now.

    Args:
        func: the function.
        is_long: whether it may take minutes, and so has other threads than what must not wait.
    """

    def __init__(self, func: Callable[[], T], *, is_long: bool = False) -> None:
        self._func = func
        self._outcome = Outcome[T]()
        self._ended = ThreadEvent()
        self._pool = _long if is_long else _pool
        self._pool.put(self)

    @property
    def ended(self) -> bool:
        """Whether the function is done."""
        return self._ended.is_set()

    async def over(self) -> None:
        """Wait for the end of the work, whatever it comes to."""
        await self._ended.wait()

    async def result(self) -> T:
        """Wait for the end of the work, and return what the function returned.

        The wait can be cancelled, and taken up again; the work goes on (see `patiently`).
        """
        await self._ended.wait()
        return self._outcome.result()

    def leave(self) -> None:
        """Do without the work, for it hangs: it never begins, or another thread takes its place."""
        self._pool.leave(self)

    def run(self) -> None:
        """Run the function; what it returns or raises is kept."""
        self._outcome.run(self._func)
        self._ended.set()


class _Pool:
    """The threads that do `Work`; a hung one is replaced when nobody waits for it any longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Work[Any]] = deque()
        self._running: set[Work[Any]] = set()
        self._threads = 0

    def put(self, work: Work[Any]) -> None:
        """Queue a piece of work for the threads of the pool."""
        with self._lock:
            self._waiting.append(work)
        self._grow()

    def leave(self, work: Work[Any]) -> None:
        """Do without a piece of work: it never begins, or its thread counts no longer."""
        with self._lock:
            if work in self._waiting:
                self._waiting.remove(work)
            elif work in self._running:
                self._running.remove(work)
                self._threads -= 1
        self._grow()

    def _grow(self) -> None:
        with self._lock:
            if not self._waiting or self._threads >= THREADS:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._serve, name="keisei-work", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            if self._threads == 1:
                self._serve()
            else:
                with self._lock:
                    self._threads -= 1

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                work = self._waiting.popleft()
                self._running.add(work)
            work.run()
            with self._lock:
                if work not in self._running:  # it hung, and there is another thread by now
                    return
                self._running.remove(work)


_pool, _long = _Pool(), _Pool()


def _begin_anew() -> None:
    """Make a forked child begin with no work: what is under way is its parent's."""
    global _pool, _long
    _pool, _long = _Pool(), _Pool()


after_in_child(_begin_anew)
