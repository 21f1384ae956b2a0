"""Members: other processes, actors and hosts log to a run that one session owns."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import (
    AsyncSessionManager,
    AsyncSessionMember,
    ForkedSessionError,
    HandleError,
    InvalidRoleError,
    NotReadyError,
    PartInUseError,
    RunEndedError,
    RunHandle,
    SessionEndedError,
    SessionInUseError,
    SessionManager,
    SessionMember,
    TakenOverError,
)
from keisei._io.directories import OpenDirectory
from keisei.journal.reader import Row, read_run
from keisei.run.parts import FoundPart, parts_of
from tests.conftest import MakeConfig
from tests.support.threads import off_loop


@pytest.fixture
def session(make_config: MakeConfig) -> Iterator[SessionManager[Any]]:
    """A session that is at work."""
    with SessionManager(make_config(), run_name="r") as session:
        yield session


def parts(handle: RunHandle) -> dict[str, FoundPart]:
    """Return the parts of a run, by name."""

    def found() -> dict[str, FoundPart]:
        with OpenDirectory(handle.directory) as directory:
            return {part.part: part for part in parts_of(directory)}

    return off_loop(found)


def rows(handle: RunHandle, part: str | None = None) -> list[Row]:
    """Return the rows of a part of a run."""
    return off_loop(lambda: list(read_run(handle.directory).rows(part=part)))


def states(handle: RunHandle) -> dict[str, str]:
    """Return the states of the parts of a run, by name."""
    return {name: part.state for name, part in parts(handle).items()}


def text(handle: RunHandle, name: str) -> str:
    """Return what a file of the run holds."""
    return off_loop(lambda: Path(handle.directory, name).read_text(encoding="utf-8"))


@pytest.mark.anyio
@pytest.mark.requirement("RANK-5")
async def test_a_member_logs_to_its_part_of_the_run(make_config: MakeConfig) -> None:
    """Metrics, events, evaluations and lines of a member stand in files of its own."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        session.log_metrics({"loss": 1.0}, step=0)
        handle = session.handle()
        async with AsyncSessionMember(handle, role="rollout-3") as member:
            about = (member.status, member.role, member.run_name, member.attempt)
            assert about == ("running", "rollout-3", "r", 1)
            assert member.handle == handle
            assert member.session_id == session.session_id
            assert member.run_artifact_dir == session.run_artifact_dir
            assert states(handle) == {"rollout-3": "running"}
            member.log_metrics({"reward": 2.0}, step=0)
            member.log_event("map", {"name": "a"})
            member.log_evaluation({"score": 3.0}, step=1)
            lines = logging.getLogger("rollouts")
            handler = member.log_handler()
            lines.addHandler(handler)
            lines.warning("hello")
            lines.removeHandler(handler)
            await member.flush()
            logged = [row.values for row in rows(handle, "rollout-3")]
            assert logged == [{"reward": 2.0}, {"evaluation/score": 3.0}]
        assert member.status == "completed"
        assert states(handle) == {"rollout-3": "completed"}
        assert session.status == "running"
    assert [row.values for row in rows(handle)] == [{"loss": 1.0}]
    events = off_loop(lambda: list(read_run(handle.directory).of("rollout-3").events()))
    assert [event.name for event in events] == ["map"]
    (line,) = text(handle, "evaluation.rollout-3.log").splitlines()
    assert json.loads(line)["values"] == {"score": 3.0}
    assert json.loads(line)["seq"] == 2
    assert "WARNING rollouts: hello" in text(handle, "training.rollout-3.log")
    assert "hello" not in text(handle, "training.log")
    assert text(handle, "evaluation.log") == ""


def test_the_blocking_face_does_the_same(session: SessionManager[Any]) -> None:
    """A script joins with a `with` block, and its error is the member's alone."""
    handle = session.handle()
    with pytest.raises(KeyError), SessionMember(handle, role="a") as member:
        member.log_metrics({"x": 1.0})
        member.flush()
        raise KeyError("lost")
    part = parts(handle)["a"]
    assert part.state == "failed"
    assert part.record is not None
    assert part.record.failure is not None
    assert part.record.failure.type == "KeyError"
    assert session.status == "running"
    assert [row.values for row in rows(handle, "a")] == [{"x": 1.0}]


@pytest.mark.requirement("RANK-5")
def test_a_handle_is_small_pickles_and_holds_no_secret(
    session: SessionManager[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any process can get it, by any way that Python values go."""
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-key-of-somebody")
    handle = session.handle()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(handle, protocol)
        assert len(data) < 1024
        assert pickle.loads(data) == handle
    assert "secret" not in repr(handle)


def test_a_handle_needs_a_run_that_lives(make_config: MakeConfig) -> None:
    """Before the set-up, after the end: an error that says so."""
    session = SessionManager(make_config(), run_name="r")
    with pytest.raises(NotReadyError, match="setup_directories"):
        session.handle()
    with session:
        pass
    with pytest.raises(SessionEndedError, match="too late"):
        session.handle()


@pytest.mark.parametrize(
    "changes",
    [
        {"run_name": "../r"},
        {"run_name": 3},
        {"session_id": "x"},
        {"session_id": None},
        {"attempt": 0},
        {"attempt": True},
        {"attempt": 10**12},
        {"directory": "runs/r"},
        {"directory": "/tmp/../etc/r"},
        {"directory": "/tmp/other"},
        {"directory": "/tmp/\0/r"},
        {"directory": b"/tmp/r"},
        {"directory": None},
        {"capacity": -1},
        {"durability": "none"},
        {"max_delay": "soon"},
    ],
)
def test_a_forged_handle_is_refused_before_anything_is_touched(
    session: SessionManager[Any], changes: dict[str, Any]
) -> None:
    """Whatever of it is not what it should be, the error says so, and the way out."""
    forged = dataclasses.replace(session.handle(), **changes)
    with pytest.raises(HandleError, match=r"damaged or forged.*session\.handle\(\)"):
        SessionMember(forged, role="a")
    assert not Path(session.run_artifact_dir, "parts").exists()


def test_what_is_no_handle_is_refused(session: SessionManager[Any]) -> None:
    """A session, a path or an empty object is no handle."""
    for wrong in (session, session.run_artifact_dir, None):
        with pytest.raises(HandleError, match="needs a handle"):
            SessionMember(wrong, role="a")  # type: ignore[arg-type]
    with pytest.raises(HandleError, match="it has no run_name"):
        SessionMember(RunHandle.__new__(RunHandle), role="a")
    with pytest.raises(InvalidRoleError, match="reserved"):
        SessionMember(session.handle(), role="rank1")


def test_handles_of_elsewhere_are_refused(session: SessionManager[Any], tmp_path: Path) -> None:
    """A directory that this host does not see, and one of another run."""
    handle = session.handle()
    away = dataclasses.replace(handle, directory=str(tmp_path / "elsewhere" / "r"))
    member = SessionMember(away, role="a")
    with pytest.raises(HandleError, match="mount it there"), member:
        pass
    assert member.status == "failed"
    other = dataclasses.replace(handle, session_id="0" * 26)
    with pytest.raises(HandleError, match="Take a handle"), SessionMember(other, role="a"):
        pass


@pytest.mark.anyio
async def test_several_members_in_one_loop(make_config: MakeConfig) -> None:
    """Each has its part; two that live cannot have one role, and the error names the first."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        handle = session.handle()

        async def work(number: int) -> None:
            async with AsyncSessionMember(handle, role=f"m{number}") as member:
                for step in range(10):
                    member.log_metrics({"x": float(number)}, step)
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(work, number)
        async with AsyncSessionMember(handle, role="m0"):
            second = AsyncSessionMember(handle, role="m0")
            with pytest.raises(PartInUseError, match=f"process {os.getpid()}"):
                await second.__aenter__()
        merged = off_loop(lambda: read_run(handle.directory).columns("x", reduce="sum"))
        assert merged == (list(range(10)), [190.0] * 10)
        assert set(states(handle).values()) == {"completed"}


@pytest.mark.requirement("RANK-5")
def test_after_the_runs_end_a_member_is_refused(make_config: MakeConfig) -> None:
    """What it logged in time is there; from then on each call says that the run has ended."""
    with SessionManager(make_config(), run_name="r") as session:
        handle = session.handle()
        member = SessionMember(handle, role="a")
        member.__enter__()
        member.log_metrics({"x": 1.0})
        member.flush()
    member.log_metrics({"x": 2.0})  # nobody knows yet
    with pytest.raises(RunEndedError, match="has ended as completed"):
        member.flush()
    for call in (
        lambda: member.log_metrics({"x": 3.0}),
        lambda: member.log_event("e"),
        lambda: member.log_evaluation({"x": 1.0}),
        lambda: member.log_handler(),
        lambda: member.flush(),
    ):
        with pytest.raises(RunEndedError, match="has ended as completed"):
            call()
    member.__exit__(None, None, None)
    assert states(handle) == {"a": "completed"}
    assert [row.values["x"] for row in rows(handle, "a")] == [1.0]
    with pytest.raises(RunEndedError), SessionMember(handle, role="b"):
        pass
    with pytest.raises(SessionEndedError, match="has ended as completed"):
        member.log_metrics({"x": 4.0})


def test_an_idle_member_learns_of_the_runs_end(make_config: MakeConfig) -> None:
    """It need not log to find out: somebody looks for it."""
    with SessionManager(make_config(), run_name="r") as session:
        member = SessionMember(session.handle(), role="a")
        member.__enter__()
    give_up = time.monotonic() + 30
    with pytest.raises(RunEndedError):
        while time.monotonic() < give_up:
            member.log_handler()
            time.sleep(0.05)
    member.__exit__(None, None, None)


def test_a_member_of_an_earlier_attempt_is_refused(
    make_config: MakeConfig,
) -> None:
    """The run goes on under a new session: the old member writes nothing, and keeps no role."""
    with SessionManager(make_config(), run_name="r") as session:
        old = SessionMember(session.handle(), role="a")
        old.__enter__()
    with SessionManager(make_config(), run_name="r") as session:
        old.log_metrics({"x": 1.0})
        with pytest.raises(TakenOverError, match="goes on as attempt 2"):
            old.flush()
        with SessionMember(session.handle(), role="a") as new:
            new.log_metrics({"x": 2.0})
        old.__exit__(None, None, None)
    logged = read_run(session.run_artifact_dir).rows(True, part="a")
    assert [(row.attempt, row.values["x"]) for row in logged] == [(2, 2.0)]


def test_a_member_has_one_life(session: SessionManager[Any]) -> None:
    """It is not used before, twice, or after; each time the error says what to do."""
    member = SessionMember(session.handle(), role="a")
    with pytest.raises(NotReadyError, match="enter it first"):
        member.log_metrics({"x": 1.0})
    with member, pytest.raises(SessionInUseError, match="entered already"):
        member.__enter__()
    with pytest.raises(SessionEndedError, match="make a new member"):
        member.__enter__()
    with pytest.raises(TypeError, match=r"Send the handle"):
        pickle.dumps(member)
    with SessionMember(session.handle(), role="a") as again:
        again.log_metrics({"x": 1.0})


def log_as(handle: RunHandle, role: str) -> None:
    """Log as a member, in another process."""
    with SessionMember(handle, role) as member:
        member.log_metrics({"x": 1.0}, 0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.requirement("RANK-5")
def test_members_in_other_processes(session: SessionManager[Any], method: str) -> None:
    """A handle goes to another process as any argument does, whatever started that."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip("this system does not fork")
    context: Any = multiprocessing.get_context(method)
    handle = session.handle()
    roles = ["a", "b"] if method == "fork" else ["a"]  # the other imports everything anew
    children = [context.Process(target=log_as, args=(handle, role)) for role in roles]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert states(handle) == dict.fromkeys(roles, "completed")
    assert read_run(handle.directory).columns("x", reduce="sum") == ([0], [float(len(roles))])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_cannot_use_its_parents_member(session: SessionManager[Any]) -> None:
    """The child is refused and leaves the part alone; the parent goes on."""
    with SessionMember(session.handle(), role="a") as member:
        member.log_metrics({"x": 1.0})
        child = os.fork()
        if not child:
            refused = 0
            calls: list[Callable[[], object]] = [
                lambda: member.log_metrics({"x": 2.0}),
                member.flush,
            ]
            for call in calls:
                try:
                    call()
                except ForkedSessionError:
                    refused += 1
            member.__exit__(None, None, None)
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        assert states(session.handle()) == {"a": "running"}
        member.log_metrics({"x": 3.0})
    logged = read_run(session.run_artifact_dir).rows(part="a")
    assert [row.values["x"] for row in logged] == [1.0, 3.0]


@pytest.mark.anyio
async def test_a_cancelled_member_ends_and_loses_nothing(make_config: MakeConfig) -> None:
    """Its part is recorded as cancelled, with all that it logged; the cancellation goes on."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        handle = session.handle()
        with anyio.CancelScope() as scope:
            async with AsyncSessionMember(handle, role="a") as member:
                member.log_metrics({"x": 1.0})
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert states(handle) == {"a": "cancelled"}
        assert len(rows(handle, "a")) == 1


def test_a_directory_that_is_moved_is_followed(session: SessionManager[Any]) -> None:
    """As an owner does: what is written goes where the run's directory is now."""
    with SessionMember(session.handle(), role="a") as member:
        member.log_metrics({"x": 1.0})
        member.flush()
        moved = f"{session.run_artifact_dir}-moved"
        os.rename(session.run_artifact_dir, moved)
        member.log_metrics({"x": 2.0})
        member.flush()
    assert [row.values["x"] for row in read_run(moved).rows(part="a")] == [1.0, 2.0]
    os.rename(moved, session.run_artifact_dir)


def test_a_hundred_members(session: SessionManager[Any]) -> None:
    """Many members of one run, here in one process, each have a part that reads back."""
    members = [SessionMember(session.handle(), role=f"m{i}") for i in range(100)]
    for number, member in enumerate(members):
        member.__enter__()
        member.log_metrics({"x": float(number)}, 0)
    for member in reversed(members):
        member.__exit__(None, None, None)
    assert len(states(session.handle())) == 100
    run = read_run(session.run_artifact_dir)
    assert run.columns("x", reduce="max") == ([0], [99.0])
    assert run.columns("x", reduce="mean") == ([0], [49.5])
