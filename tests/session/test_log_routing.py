"""Many sessions on one logger: each gets the lines of its own context, and no other."""

from __future__ import annotations

import logging
import os
import threading
from contextvars import copy_context
from typing import Any

import anyio
import anyio.to_thread
import pytest

from keisei import (
    AsyncSessionManager,
    SessionManager,
)
from keisei.session import context
from tests.conftest import MakeConfig
from tests.support.forks import in_child
from tests.support.log_lines import messages_of, user_logger

__all__ = ["user_logger"]


async def test_twenty_sessions_on_one_logger_do_not_mix(
    make_config: MakeConfig, user: logging.Logger
) -> None:
    """Each gets its own 50 lines, from its task, a child task and a thread of anyio's."""
    sessions: list[AsyncSessionManager[Any]] = []
    begin = anyio.Event()

    async def say(name: str, numbers: range) -> None:
        for number in numbers:
            user.info("%s %d", name, number)
            await anyio.sleep(0)

    async def life(name: str) -> None:
        async with AsyncSessionManager(make_config(), run_name=name) as session:
            user.addHandler(session.log_handler())
            sessions.append(session)
            if len(sessions) == 20:
                begin.set()
            await begin.wait()
            await say(name, range(20))
            async with anyio.create_task_group() as group:
                group.start_soon(say, name, range(20, 40))
            for number in range(40, 50):
                await anyio.to_thread.run_sync(user.info, "%s %d", name, number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(life, f"s{number}")
    wrong = [
        session.run_name
        for session in sessions
        if messages_of(session) != [f"{session.run_name} {number}" for number in range(50)]
    ]
    assert wrong == []


async def test_nested_sessions_and_tasks_that_outlive_them(
    make_config: MakeConfig, user: logging.Logger
) -> None:
    """The inner one is the current one in its block; what it has started belongs to the outer
    one afterwards."""
    go_on = anyio.Event()

    async def outlive() -> None:
        user.info("in inner's task")
        await go_on.wait()
        user.info("after inner")

    async with (
        AsyncSessionManager(make_config(), run_name="outer") as outer,
        anyio.create_task_group() as group,
    ):
        user.addHandler(outer.log_handler())
        user.info("before")
        async with AsyncSessionManager(make_config(), run_name="inner") as inner:
            user.addHandler(inner.log_handler())
            user.info("in inner")
            group.start_soon(outlive)
            await anyio.wait_all_tasks_blocked()
            with outer.as_current():
                user.info("for outer")
            user.info("in inner again")
        user.info("behind inner")
        go_on.set()
    user.info("after all")
    assert messages_of(inner) == ["in inner", "in inner's task", "in inner again"]
    assert messages_of(outer) == ["before", "for outer", "behind inner", "after inner"]


def test_threads_on_the_blocking_face(make_config: MakeConfig, user: logging.Logger) -> None:
    """A bare thread's records are a session's only while no other one has a handler; or by word."""

    def in_thread(text: str, session: SessionManager[Any] | None = None) -> None:
        def work() -> None:
            if session is None:
                user.info(text)
                return
            with session.as_current():
                user.info(text)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    with SessionManager(make_config(), run_name="a") as a:
        user.addHandler(a.log_handler())
        in_thread("one")
        with SessionManager(make_config(), run_name="b") as b:
            user.addHandler(b.log_handler())
            in_thread("nobody's")
            in_thread("two", a)
            in_thread("three", b)
            user.info("four")
            user.removeHandler(b.log_handler())
            in_thread("five")  # b's handler is gone, and so it is a's again
        user.info("six")
    assert messages_of(a) == ["one", "two", "five", "six"]
    assert messages_of(b) == ["three", "four"]


def test_steps_without_a_block(make_config: MakeConfig, user: logging.Logger) -> None:
    """A session that is not entered is the current one nowhere: alone, it gets all records."""
    session = SessionManager(make_config())
    session.setup_directories()
    user.addHandler(session.log_handler())
    user.info("mine")
    with SessionManager(make_config()):
        user.info("another's, which has no handler")
    session.finalize_session()
    assert messages_of(session) == ["mine"]


def test_a_block_that_is_left_in_another_context() -> None:
    """As a fixture's is: what was left is passed over where it was entered, and is not kept."""
    owner, outer = object(), object()
    with context.inside(outer):
        copied = copy_context()
        entered = copied.run(context.enter, owner)
        assert copied.run(context.current) is owner
        assert context.current() is outer
        context.leave(entered)
        assert copied.run(context.current) is outer
        assert copied.run(context.enter, owner).outer is not entered
    assert context.current() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_its_own_session(make_config: MakeConfig, user: logging.Logger) -> None:
    """Taken step by step, it gets the child's records, a bare thread's too, and no other does."""
    with SessionManager(make_config()) as session:
        user.addHandler(session.log_handler())

        def child() -> list[str]:
            own = SessionManager(make_config(), run_name="child")
            own.setup_directories()
            user.addHandler(own.log_handler())
            user.info("child")
            thread = threading.Thread(target=user.info, args=("thread",))
            thread.start()
            thread.join()
            own.finalize_session()
            return messages_of(own)

        assert in_child(child) == "returned ['child', 'thread']"
        user.info("parent")
    assert messages_of(session) == ["parent"]
