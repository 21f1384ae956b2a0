"""The blocking face's way into a loop: one that is leased for a call, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, BlockingPortalProvider

from keisei._io.forks import after_in_child
from keisei._io.loop import on_loop
from keisei.errors import NoThreadError

P = ParamSpec("P")
T = TypeVar("T")

# Leased, not held: a held portal leaves a thread behind that makes fork() warn on 3.12 and newer.
# Calls that overlap share one loop, so that what they wait for together is on the same one.
_provider = BlockingPortalProvider(backend="asyncio")


def _forget_leases() -> None:
    """Begin anew: a forked child has none of its parent's threads, and so none of its leases."""
    global _provider
    _provider = BlockingPortalProvider(backend="asyncio")


after_in_child(_forget_leases)


def call(func: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a coroutine function to its end from a thread without a loop, or beside a running one.

    An interruption of the waiting thread (Ctrl-C) cancels the coroutine, waits for it to have
    cleaned up, and is raised again.

    Args:
        func: the coroutine function; the rest are its arguments.

    Raises:
        NoThreadError: the system has no thread left to run the loop in.
    """
    with _leased() as portal:
        future: Future[T] = portal.start_task_soon(_run, func, args, kwargs)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # leaving the lease then waits for the cancelled coroutine
            raise


def last_call(func: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a coroutine function as `call` does, or in this thread where no other can be started.

    None can where the system has none left, and where the interpreter exits.

    Args:
        func: the coroutine function; the rest are its arguments.

    Raises:
        NoThreadError: there is no thread, and a loop runs in this one.
    """
    try:
        return call(func, *args, **kwargs)
    except NoThreadError:
        if on_loop():
            raise
    return anyio.run(_run, func, args, kwargs, backend="asyncio")


@contextmanager
def _leased() -> Iterator[BlockingPortal]:
    provider = _provider
    try:
        portal = provider.__enter__()
    except RuntimeError as exc:
        _forget_leases()  # what could not be entered would be taken for a portal
        raise NoThreadError(f"a loop for this call cannot be started: {exc}") from exc
    with ExitStack() as stack:
        stack.push(provider)
        yield portal


async def _run(
    func: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> T:
    return await func(*args, **kwargs)
