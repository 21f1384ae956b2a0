"""A member that is cancelled at any suspension ends, truthfully, and lets its part go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

from keisei import AsyncSessionManager, AsyncSessionMember, RunHandle
from keisei._io.directories import OpenDirectory
from keisei.journal.reader import read_run
from keisei.run.parts import parts_of
from tests.conftest import MakeConfig
from tests.support.suspensions import Stepped, as_it_wakes, at_every_suspension, at_once, soon
from tests.support.threads import off_loop

WHENS = [at_once, soon, as_it_wakes]


async def live(handle: RunHandle, role: str, logged: list[int]) -> None:
    """Join a run, log, flush, and leave it."""
    async with AsyncSessionMember(handle, role) as member:
        member.log_metrics({"x": 1.0})
        await member.flush()
        logged.append(1)
        await anyio.lowlevel.checkpoint()


def amiss(handle: RunHandle, role: str, acknowledged: int) -> list[str]:
    """Return what is not as it should be after a member has been cancelled."""
    problems = []
    with OpenDirectory(handle.directory) as directory:
        for part in parts_of(directory):
            if part.part == role and part.state not in ("completed", "cancelled"):
                problems.append(f"{role} is {part.state}")
    rows = list(read_run(handle.directory).rows(part=role))
    if len(rows) < acknowledged:
        problems.append(f"{role} has lost what was acknowledged")
    return problems


@pytest.mark.anyio
@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("plain", [False, True], ids=["scope", "task"])
async def test_a_member_is_cancelled_at_every_suspension(
    make_config: MakeConfig, when: Callable[..., Any], plain: bool
) -> None:
    """By a scope and by a plain `Task.cancel`: the part ends, and its role is free again."""
    native = anyio.lowlevel.current_token().native_token
    on_asyncio = isinstance(native, asyncio.AbstractEventLoop)
    if not on_asyncio and (plain or when is as_it_wakes):
        pytest.skip("only asyncio's tasks can be cancelled so")
    problems: list[str] = []
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        handle = session.handle()

        async def run(k: int) -> bool:
            role, logged = f"m{k}", list[int]()
            work = live(handle, role, logged)
            if plain:
                task: asyncio.Task[None]

                async def stepped() -> None:
                    await steps

                steps = Stepped(work, k, partial(when, lambda: task.cancel()))
                task = asyncio.ensure_future(stepped())
                await asyncio.wait([task])
                if not task.cancelled() and task.exception() is not None:
                    problems.append(f"at {k}: {task.exception()!r}")
            else:
                with anyio.CancelScope() as scope:
                    steps = Stepped(work, k, partial(when, scope.cancel))
                    await steps
            problems.extend(off_loop(partial(amiss, handle, role, len(logged))))
            async with AsyncSessionMember(handle, role):
                pass
            return steps.reached

        count = await at_every_suspension(run)
    assert count >= 3
    assert problems == []
