"""The blocking face's way into a loop: one that is leased for a call, in a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortalProvider

P = ParamSpec("P")
T = TypeVar("T")

# Leased, not held: a held portal leaves a thread behind that makes fork() warn on 3.12 and newer.
# Calls that overlap share one loop, so that what they wait for together is on the same one.
_provider = BlockingPortalProvider(backend="asyncio")


def _after_fork() -> None:
    """Forget, in a forked child, leases on threads that only its parent has."""
    global _provider
    _provider = BlockingPortalProvider(backend="asyncio")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def call(func: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a coroutine function to its end from a thread without a loop, or beside a running one.

    An interruption of the waiting thread (Ctrl-C) cancels the coroutine, waits for it to have
    cleaned up, and is raised again.

    Args:
        func: the coroutine function; the rest are its arguments.
    """
    with _provider as portal:
        future: Future[T] = portal.start_task_soon(_run, func, args, kwargs)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # leaving the lease then waits for the cancelled coroutine
            raise


async def _run(
    func: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> T:
    return await func(*args, **kwargs)
