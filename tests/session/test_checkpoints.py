"""A session's checkpoints: saved, by itself too, restored, and waited for at the end."""

from __future__ import annotations

import json
import math
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from keisei import (
    AppConfig,
    AsyncSessionManager,
    Checkpoint,
    CheckpointError,
    ConfigError,
    ForkedSessionError,
    KeepBest,
    NotReadyError,
    SessionEndedError,
    SessionManager,
)
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.verify import verify
from keisei.journal.reader import read_run
from tests.conftest import MakeConfig
from tests.support.file_faults import fast_place
from tests.support.forks import in_child
from tests.support.slow_saves import SlowWriter
from tests.support.threads import off_loop

Session = AsyncSessionManager[AppConfig]


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> Iterator[AppConfig]:
    """A config whose runs live where an fsync costs nothing."""
    with fast_place(tmp_path) as place:
        yield make_config(logging={"log_dir": str(place)})


def state_of(step: int) -> dict[Any, Any]:
    """Return a state that tells of its step."""
    return {"weights": np.arange(50.0) + step, "step": step, 7: [None, b"x", (1, 2)]}


def names(session: Session | SessionManager[AppConfig]) -> list[str]:
    """Return what the models directory holds."""
    return sorted(os.listdir(session.model_dir))


def steps(session: Session | SessionManager[AppConfig]) -> list[int]:
    """Return the steps of the checkpoints that are there; all of them verify."""
    found = [name for name in names(session) if name.endswith(".ckpt")]

    def problems() -> list[str]:
        with OpenDirectory(session.model_dir) as models:
            return [problem for name in found for problem in verify(models, name)]

    assert off_loop(problems) == []
    return sorted(int(name[len("checkpoint_") : -len(".ckpt")]) for name in found)


def events(session: Session | SessionManager[AppConfig], name: str) -> list[dict[str, Any]]:
    """Return what the journal's events of this name say."""
    found = off_loop(lambda: list(read_run(session.run_artifact_dir).events()))
    return [e.data for e in found if e.name == name and isinstance(e.data, dict)]


def rows(session: Session) -> list[tuple[int | None, float]]:
    """Return the steps and losses that the run shows."""
    found = off_loop(lambda: list(read_run(session.run_artifact_dir).rows()))
    return [(row.step, row.values["loss"]) for row in found]


# ---- one save ------------------------------------------------------------------------------------


@pytest.mark.requirement("CKPT-1", "CKPT-2")
async def test_a_checkpoint_is_saved_and_described(config: AppConfig) -> None:
    """What is returned is what stands on the disk; the journal and the summary tell of it."""
    async with AsyncSessionManager(config, run_name="r") as session:
        saved = await session.save_checkpoint(state_of(5), 5, {"loss": 0.5, "eval": {"r": 1}})
        assert isinstance(saved, Checkpoint)
        path = Path(session.model_dir, "checkpoint_5.ckpt")
        assert saved._replace(digest="", created_at="") == Checkpoint(
            step=5,
            attempt=1,
            path=str(path),
            size=sum(file.stat().st_size for file in path.iterdir()),
            digest="",
            metrics={"loss": 0.5, "eval/r": 1.0},
            created_at="",
        )
        assert saved.digest
        manifest = json.loads((path / "manifest.json").read_bytes())["manifest"]
        assert (manifest["step"], manifest["run"]) == (5, session.session_id)
        assert os.readlink(os.path.join(session.model_dir, "latest")) == path.name
        assert not any(b"pickle" in file.read_bytes() for file in path.iterdir())
        known = session.get_session_summary()["checkpoints"]
        assert known.pop("slowest_s") > 0
        assert known == {
            "count": 1,
            "latest": str(path),
            "best": None,
            "last_step": 5,
            "failed": 0,
        }
        json.dumps(session.get_session_summary())
    (event,) = events(session, "checkpoint")
    assert event.pop("seconds") >= 0
    assert event == {
        "path": saved.path,
        "step": 5,
        "size": saved.size,
        "digest": saved.digest,
    }


@pytest.mark.requirement("CKPT-2")
async def test_the_final_model_is_saved_the_same_way(config: AppConfig) -> None:
    """It has no step, is replaced by the next one, and is no checkpoint of the policy's."""
    async with AsyncSessionManager(config, run_name="r") as session:
        first = await session.save_final_model(state_of(1))
        assert (first.step, Path(first.path).name) == (None, "final_model")
        second = await session.save_final_model(state_of(2), metrics={"loss": 1}, copy=False)
        assert second.metrics == {"loss": 1.0}
        found = await session.restore_checkpoint(second.path, resume=False)
        assert found is not None
        assert found.state is not None
        assert (found.step, found.state["step"]) == (None, 2)
        assert session.get_session_summary()["checkpoints"]["last_step"] is None
    assert names(session) == ["final_model"]


@pytest.mark.requirement("CKPT-1")
async def test_a_step_is_saved_once(config: AppConfig) -> None:
    """The same content is no second save; other content is an error that names the ways out."""
    async with AsyncSessionManager(config, run_name="r") as session:
        first = await session.save_checkpoint(state_of(5), 5)
        assert await session.save_checkpoint(state_of(5), 5) == first
        with pytest.raises(CheckpointError, match=r"exists already with other content.*another"):
            await session.save_checkpoint(state_of(6), 5)
        known = session.get_session_summary()["checkpoints"]
        assert (known["count"], known["failed"]) == (1, 1)
        assert steps(session) == [5]
    assert len(events(session, "checkpoint")) == len(events(session, "checkpoint_failed")) == 1


@pytest.mark.requirement("CKPT-1")
async def test_a_function_writes_files(config: AppConfig) -> None:
    """On a thread; what it raises is the cause of a typed error, and leaves nothing."""
    threads: list[str] = []

    def write(directory: Path) -> None:
        threads.append(threading.current_thread().name)
        (directory / "deep").mkdir()
        (directory / "deep" / "model.bin").write_bytes(b"\x00\x01")

    def fail(directory: Path) -> None:
        (directory / "half").write_bytes(b"half")
        raise ZeroDivisionError("in the middle")

    async with AsyncSessionManager(config, run_name="r") as session:
        await session.save_checkpoint(write, 1)
        assert threads != [threading.current_thread().name]
        found = await session.restore_checkpoint()
        assert found is not None
        assert found.state is None
        assert found.directory is not None
        assert (found.directory / "deep" / "model.bin").read_bytes() == b"\x00\x01"
        with pytest.raises(CheckpointError, match="in the middle") as failed:
            await session.save_checkpoint(fail, 2)
        assert isinstance(failed.value.__cause__, ZeroDivisionError)
        assert failed.value.path == os.path.join(session.model_dir, "checkpoint_2.ckpt")
        assert names(session) == ["checkpoint_1.ckpt", "latest"]


async def _later(directory: Path) -> None:
    """Be asynchronous."""


WRONG: dict[str, tuple[Callable[[Session], Any], type[Exception], str]] = {
    "no state": (lambda s: s.save_checkpoint(5, 1), TypeError, "must be a mapping"),  # type: ignore[arg-type]
    "a getter": (lambda s: s.save_checkpoint(lambda: {}, 1), TypeError, "Call it"),  # type: ignore[arg-type, misc]
    "asynchronous": (lambda s: s.save_checkpoint(_later, 1), TypeError, "asynchronous"),
    "no step": (lambda s: s.save_checkpoint({}, None), TypeError, "step"),  # type: ignore[arg-type]
    "half a step": (lambda s: s.save_checkpoint({}, 0.5), TypeError, "whole"),  # type: ignore[arg-type]
    "below 0": (lambda s: s.save_checkpoint({}, -1), ValueError, "0 or more"),
    "no metric": (lambda s: s.save_checkpoint({}, 1, {"loss": "low"}), TypeError, "loss"),
    "no metrics": (lambda s: s.save_checkpoint({}, 1, [1]), TypeError, "mapping"),  # type: ignore[arg-type]
    "no choice": (lambda s: s.save_checkpoint({}, 1, when_busy="no"), ValueError, "skip"),  # type: ignore[arg-type]
    "a lock": (lambda s: s.save_checkpoint({"a": [threading.Lock()]}, 1), CheckpointError, "a"),
    "no final state": (lambda s: s.save_final_model(None), TypeError, "mapping"),
    "no policy": (lambda s: s.checkpoint_if_due(1), NotReadyError, "setup_auto_checkpointing"),
}


@pytest.mark.requirement("CKPT-1", "CKPT-4")
@pytest.mark.parametrize("wrong", WRONG)
async def test_what_cannot_be_saved_is_refused_at_the_call(config: AppConfig, wrong: str) -> None:
    """With a typed error that says why, and nothing on the disk."""
    act, kind, words = WRONG[wrong]
    async with AsyncSessionManager(config, run_name="r") as session:
        with pytest.raises(kind, match=words):
            await act(session)
        assert names(session) == []


SET_UPS: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "no state": ({"state": 5}, TypeError),
    "two parameters": ({"state": lambda a, b: None}, TypeError),
    "asynchronous": ({"state": _later}, TypeError),
    "interval": ({"state": {}, "interval": 0}, ConfigError),
    "keep_last": ({"state": {}, "keep_last": -1}, ConfigError),
    "keep_best": ({"state": {}, "keep_best": {"metric": "loss"}}, ConfigError),
}


@pytest.mark.requirement("CKPT-5")
@pytest.mark.parametrize("wrong", SET_UPS)
def test_a_policy_that_makes_no_sense_is_refused(config: AppConfig, wrong: str) -> None:
    """On both faces, before anything has begun; the one before it stays."""
    given, kind = SET_UPS[wrong]
    for session in (AsyncSessionManager(config), SessionManager(config)):
        with pytest.raises(kind, match="state" if kind is TypeError else wrong):
            session.setup_auto_checkpointing(**given)


CALLS: dict[str, Callable[[SessionManager[AppConfig]], object]] = {
    "save_checkpoint": lambda s: s.save_checkpoint({}, 1),
    "save_final_model": lambda s: s.save_final_model({}),
    "checkpoint_if_due": lambda s: s.checkpoint_if_due(1000),
    "restore_checkpoint": lambda s: s.restore_checkpoint(),
}


@pytest.mark.requirement("CKPT-1", "CKPT-5", "CKPT-6")
@pytest.mark.parametrize("call", CALLS)
def test_each_call_has_its_time(config: AppConfig, call: str) -> None:
    """Not before the directories, not after the end, and not in a forked child."""
    session = SessionManager(config, run_name="r")
    session.setup_auto_checkpointing(state={})
    with pytest.raises(NotReadyError, match=call):
        CALLS[call](session)
    session.setup_directories()
    if hasattr(os, "fork"):
        said = in_child(lambda: CALLS[call](session))
        assert said.startswith(ForkedSessionError.__name__)
    assert names(session) == []
    session.finalize_session("failed")
    with pytest.raises(SessionEndedError, match=call):
        CALLS[call](session)
    with pytest.raises(SessionEndedError):
        session.setup_auto_checkpointing(state={})
    assert names(session) == []


# ---- several saves -------------------------------------------------------------------------------


@pytest.mark.requirement("CKPT-4")
async def test_one_save_at_a_time_is_under_way(config: AppConfig) -> None:
    """Others wait in the order of their calls, or are skipped; each is of its own instant."""
    slow = SlowWriter()
    state = state_of(0)
    async with AsyncSessionManager(config, run_name="r") as session:
        done: list[int | None] = []

        async def save(step: int, state: Any) -> None:
            saved = await session.save_checkpoint(state, step)
            done.append(saved and saved.step)

        async with anyio.create_task_group() as group:
            group.start_soon(save, 1, slow)
            await slow.begun.wait()
            assert await session.save_checkpoint(state, 9, when_busy="skip") is None
            for step in (2, 3, 4):
                group.start_soon(save, step, state)
                await anyio.wait_all_tasks_blocked()
                state["weights"] += 1
            assert steps(session) == []
            slow.let()
        assert done == [1, 2, 3, 4]
        assert await session.save_checkpoint(state, 9, when_busy="skip") is not None
        for step in (2, 3, 4):
            found = await session.restore_checkpoint(step)
            assert found is not None
            assert found.state is not None
            assert found.state["weights"][0] == step - 2


@pytest.mark.requirement("CKPT-4")
async def test_a_save_of_a_copy_outlives_its_caller(config: AppConfig) -> None:
    """A caller who is cancelled leaves it to its thread; the next save and the end wait for it."""
    slow = SlowWriter()
    async with AsyncSessionManager(config, run_name="r") as session:
        await session.save_checkpoint(state_of(1), 1)
        async with anyio.create_task_group() as group:
            group.start_soon(session.save_checkpoint, slow, 2)
            await slow.begun.wait()
            with anyio.move_on_after(0.01) as scope:  # it waits for its turn: nothing has begun
                await session.save_checkpoint(state_of(3), 3)
            assert scope.cancelled_caught
            slow.let()
        assert steps(session) == [1, 2]
        with anyio.CancelScope() as around:
            around.cancel()
            await session.save_checkpoint(state_of(4), 4)
    left = steps(session)
    assert left in ([1, 2], [1, 2, 4])
    assert not [name for name in names(session) if name.startswith(".")]


@pytest.mark.requirement("CKPT-4")
async def test_what_may_change_is_given_up_with_its_caller(config: AppConfig) -> None:
    """A function's files and arrays without a copy: the cancelled caller waits, nothing appears."""
    slow = SlowWriter()
    async with AsyncSessionManager(config, run_name="r") as session:
        await session.save_checkpoint(state_of(1), 1)
        async with anyio.create_task_group() as group:
            group.start_soon(session.save_checkpoint, slow, 2)
            await slow.begun.wait()
            group.cancel_scope.cancel()
            group.start_soon(_let_later, slow)
        assert slow.calls == 1
        assert names(session) == ["checkpoint_1.ckpt", "latest"]
        await session.save_checkpoint(state_of(2), 2)
    assert steps(session) == [1, 2]


async def _let_later(slow: SlowWriter) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.wait_all_tasks_blocked()
        slow.let()


@pytest.mark.requirement("CKPT-3", "CKPT-4")
async def test_the_end_waits_for_the_save_that_is_under_way(config: AppConfig) -> None:
    """Then nothing is half; one that has not begun by then never does."""
    slow = SlowWriter()
    errors: list[Exception] = []
    session = AsyncSessionManager(config, run_name="r")

    async def late() -> None:
        try:
            await session.save_checkpoint(state_of(3), 3)
        except SessionEndedError as exc:
            errors.append(exc)

    async with anyio.create_task_group() as group:
        async with session:
            group.start_soon(session.save_checkpoint, slow, 2)
            await slow.begun.wait()
            group.start_soon(late)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(_let_later, slow)
        assert session.status == "completed"
        assert names(session) == ["checkpoint_2.ckpt", "latest"]
    assert steps(session) == [2]
    assert len(errors) == 1
    assert [event["step"] for event in events(session, "checkpoint")] == [2]


# ---- by itself -----------------------------------------------------------------------------------


@pytest.mark.requirement("CKPT-5")
async def test_it_saves_where_the_policy_says_so(config: AppConfig) -> None:
    """At multiples, at given steps and at the end; the state is that of the safe point."""
    state: dict[str, Any] = {}
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(10, state=state, at_steps=[7], keep_last=None)
        due = []
        for step in range(26):
            state["step"] = np.int64(step)
            if (saved := await session.checkpoint_if_due(step)) is not None:
                due.append(saved.step)
        assert due == [7, 10, 20]
        assert await session.checkpoint_if_due(np.int64(25)) is None  # type: ignore[arg-type]
    assert steps(session) == [7, 10, 20, 25]
    async with AsyncSessionManager(config, run_name="r") as session:
        for step in (7, 10, 20, 25):
            found = await session.restore_checkpoint(step, resume=False)
            assert found is not None
            assert found.state == {"step": step}


@pytest.mark.requirement("CKPT-5")
async def test_a_program_that_skips_steps_saves_at_the_next_one(config: AppConfig) -> None:
    """Each multiple that was passed is one save, at the first safe point after it."""
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(1000, state={}, at_end=False, keep_last=None)
        for step in (0, 999, 1500, 1999, 4100, 4900, 5000):
            await session.checkpoint_if_due(step)
    assert steps(session) == [1500, 4100, 5000]


@pytest.mark.requirement("CKPT-5")
async def test_it_saves_by_time_too(config: AppConfig) -> None:
    """Where the last save is so long ago; a save of the program's own counts."""
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(None, state={}, every_seconds=1e-9, keep_last=None)
        assert await session.checkpoint_if_due(1) is not None
        assert await session.checkpoint_if_due(2) is not None
        session.setup_auto_checkpointing(None, state={}, every_seconds=3600, keep_last=None)
        assert await session.checkpoint_if_due(3) is None
        session.setup_auto_checkpointing(None, state={}, at_end=False)
        assert await session.checkpoint_if_due(4) is None
    assert steps(session) == [1, 2]


@pytest.mark.requirement("CKPT-5")
async def test_the_config_has_the_same_fields(make_config: MakeConfig, tmp_path: Path) -> None:
    """What the call leaves out is the config's, and what it says comes before it."""
    section = {"interval": 5, "keep_last": 1, "at_end": False, "keep_best": None}
    config = make_config(logging={"log_dir": str(tmp_path)}, checkpoints=section)
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(state={})
        for step in range(12):
            await session.checkpoint_if_due(step)
        assert steps(session) == [10]
        session.setup_auto_checkpointing(4, state={}, keep_last=2, at_end=True)
        for step in range(12, 19):
            await session.checkpoint_if_due(step)
    assert steps(session) == [16, 18]


@pytest.mark.requirement("CKPT-5")
async def test_what_is_kept_goes_by_the_metric_that_was_logged(config: AppConfig) -> None:
    """The best by its last value, nested or not; NaN, and what was never logged, is no best."""
    values = {10: 3.0, 20: math.nan, 30: 1.0, 40: 2.0}
    by = KeepBest(metric="evaluation/return", mode="min")
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(10, state={}, keep_last=1, keep_best=by)
        await session.checkpoint_if_due(5)
        for step in range(10, 45, 10):
            session.log_evaluation({"return": values[step], "other": 0.0}, step)
            session.log_metrics({"loss": 100.0}, step)
            saved = await session.checkpoint_if_due(step)
            assert saved is not None
            assert list(saved.metrics) == ["evaluation/return"]
        assert steps(session) == [30, 40]
        assert os.readlink(os.path.join(session.model_dir, "best")) == "checkpoint_30.ckpt"
        known = session.get_session_summary()["checkpoints"]
        assert known["best"] == os.path.join(session.model_dir, "checkpoint_30.ckpt")
        found = await session.restore_checkpoint("best")
        assert found is not None
        assert (found.step, found.metrics) == (30, {"evaluation/return": 1.0})


@pytest.mark.requirement("CKPT-5")
async def test_without_a_value_there_is_no_best(config: AppConfig) -> None:
    """A metric that was never logged: all is kept as without it, and asking is a typed error."""
    by = KeepBest(metric="never", mode="max", count=2)
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(1, state={}, keep_last=2, keep_best=by)
        for step in range(1, 5):
            session.log_metrics({"loss": 1.0}, step)
            saved = await session.checkpoint_if_due(step)
            assert saved is not None
            assert saved.metrics == {}
        assert steps(session) == [3, 4]
        assert not os.path.lexists(os.path.join(session.model_dir, "best"))
        with pytest.raises(CheckpointError, match="keep_best"):
            await session.restore_checkpoint("best")


@pytest.mark.requirement("CKPT-5")
async def test_saves_of_the_program_alone_are_never_removed(config: AppConfig) -> None:
    """Only a policy that was set removes what it does not keep, and then of all of them."""
    async with AsyncSessionManager(config, run_name="r") as session:
        for step in range(1, 6):
            await session.save_checkpoint({"a": step}, step)
        assert steps(session) == [1, 2, 3, 4, 5]
        session.setup_auto_checkpointing(6, state={}, keep_every=2)
        await session.checkpoint_if_due(6)
        assert steps(session) == [2, 4, 5, 6]


ENDS: dict[str, tuple[dict[str, Any], BaseException | None, list[int]]] = {
    "completed": ({}, None, [7]),
    "not at the end": ({"at_end": False}, None, []),
    "failed": ({}, ZeroDivisionError(), []),
    "cancelled": ({}, KeyboardInterrupt(), []),
}


@pytest.mark.requirement("CKPT-5")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("face", ["async", "blocking", "finalize"])
def test_the_last_step_is_saved_when_the_run_is_completed(
    config: AppConfig, end: str, face: str
) -> None:
    """And where it failed it is not: its state may be broken. On both faces, in every way."""
    given, error, left = ENDS[end]

    async def life() -> Session:
        async with AsyncSessionManager(config, run_name="r") as session:
            session.setup_auto_checkpointing(100, state={"a": 1}, **given)
            await session.checkpoint_if_due(7)
            if error is not None:
                raise error
        return session

    def act(session: SessionManager[AppConfig]) -> None:
        session.setup_auto_checkpointing(100, state={"a": 1}, **given)
        session.checkpoint_if_due(7)
        if error is not None:
            raise error

    session = SessionManager(config, run_name="r")
    with nullcontext() if error is None else pytest.raises(type(error)):
        if face == "async":
            anyio.run(life)
        elif face == "blocking":
            with session:
                act(session)
        else:
            session.setup_directories()
            try:
                act(session)
            finally:
                session.finalize_session()
    directory = Path(config.logging.log_dir or "", "r", "models")
    found = sorted(int(path.name[11:-5]) for path in directory.glob("checkpoint_*.ckpt"))
    assert found == left


@pytest.mark.requirement("CKPT-5")
async def test_a_step_that_is_saved_is_not_saved_again(config: AppConfig) -> None:
    """By itself: neither where it is due, nor at the end."""
    calls: list[int] = []

    def state() -> dict[str, Any]:
        calls.append(1)
        return {"a": len(calls)}

    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(10, state=state)
        assert await session.checkpoint_if_due(10) is not None
        assert await session.checkpoint_if_due(10) is None
        await session.save_checkpoint({"own": 1}, 20)
        assert await session.checkpoint_if_due(20) is None
    assert calls == [1]
    assert steps(session) == [10, 20]


@pytest.mark.requirement("CKPT-5")
async def test_a_step_with_other_content_is_left_alone_by_itself(
    config: AppConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that starts again from nothing warns, and trains on."""
    async with AsyncSessionManager(config, run_name="r") as session:
        first = await session.save_checkpoint(state_of(10), 10)
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(10, state={"other": 1})
        caplog.clear()
        assert await session.checkpoint_if_due(10) == first
        assert [r.levelname for r in caplog.records] == ["WARNING"]
        assert "other content" in caplog.text
        assert await session.checkpoint_if_due(20) is not None


@pytest.mark.requirement("CKPT-4", "CKPT-5")
async def test_a_save_that_fails_is_told_and_the_training_may_go_on(config: AppConfig) -> None:
    """It is a typed error with path and cause; the earlier ones stay; the next one is tried."""
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(1, state={"a": 1}, keep_last=None)
        await session.checkpoint_if_due(1)
        models = Path(session.model_dir)
        models.rename(models.with_name("away"))
        models.write_text("in the way")
        with pytest.raises(CheckpointError, match="models") as failed:
            await session.checkpoint_if_due(2)
        assert failed.value.path is not None
        assert isinstance(failed.value.__cause__, OSError)
        models.unlink()
        models.with_name("away").rename(models)
        assert await session.checkpoint_if_due(3) is not None
        known = session.get_session_summary()["checkpoints"]
        assert (known["count"], known["failed"]) == (2, 1)
    assert steps(session) == [1, 3]
    (event,) = events(session, "checkpoint_failed")
    assert event["step"] == 2
    assert "CheckpointError" in event["error"]


@pytest.mark.requirement("CKPT-5")
@pytest.mark.parametrize("face", ["async", "blocking"])
def test_a_state_function_that_fails(
    config: AppConfig, face: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is the program's at a safe point; at the end it is logged, and the end is whole."""
    answers: Iterator[Any] = iter([{"a": 1}, ZeroDivisionError(), 5, ZeroDivisionError()])
    threads = set()

    def state() -> Any:
        threads.add(threading.current_thread())
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def life() -> None:
        async with AsyncSessionManager(config, run_name="r") as session:
            session.setup_auto_checkpointing(1, state=state)
            assert await session.checkpoint_if_due(1) is not None
            with pytest.raises(ZeroDivisionError):
                await session.checkpoint_if_due(2)
            with pytest.raises(TypeError, match="must return a mapping"):
                await session.checkpoint_if_due(3)

    if face == "async":
        anyio.run(life)
    else:
        with SessionManager(config, run_name="r") as session:
            session.setup_auto_checkpointing(1, state=state)
            assert session.checkpoint_if_due(1) is not None
            with pytest.raises(ZeroDivisionError):
                session.checkpoint_if_due(2)
            with pytest.raises(TypeError, match="must return a mapping"):
                session.checkpoint_if_due(3)
    assert threads == {threading.current_thread()}
    assert "step 3 is not saved: ZeroDivisionError" in caplog.text
    record = json.loads(Path(config.logging.log_dir or "", "r", "session.json").read_bytes())
    assert record["status"] == "completed"


@pytest.mark.requirement("CKPT-8")
def test_too_little_space_is_said_before_it_is_needed(
    make_config: MakeConfig, tiny_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning where the policy does not fit, an error where the checkpoint itself does not."""
    config = make_config(logging={"model_dir": str(tiny_disk)})
    with SessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(1, state=lambda: {"a": os.urandom(40_000)}, keep_last=9)
        session.checkpoint_if_due(1)
        session.checkpoint_if_due(2)
        said = [r.getMessage() for r in caplog.records if "space" in r.getMessage()]
        assert len(said) == 1, said
        before = names(session)
        with pytest.raises(CheckpointError, match="space"):
            session.save_checkpoint({"a": np.zeros(60_000)}, 3)
        assert names(session) == before


# ---- restored ------------------------------------------------------------------------------------


@pytest.mark.requirement("CKPT-6")
async def test_a_fresh_run_has_none(config: AppConfig) -> None:
    """So one program serves the first attempt and all later ones."""
    async with AsyncSessionManager(config, run_name="r") as session:
        for which in ("latest", "best", 5):
            assert await session.restore_checkpoint(which) is None
        with pytest.raises(CheckpointError):
            await session.restore_checkpoint(Path(session.model_dir, "checkpoint_5.ckpt"))


@pytest.mark.requirement("CKPT-6")
async def test_the_first_restore_of_an_attempt_goes_on_from_there(config: AppConfig) -> None:
    """What came after it is superseded, the random states are back; a later one only reads."""
    async with AsyncSessionManager(config, run_name="r") as session:
        for step in range(1, 6):
            session.log_metrics({"loss": float(step)}, step)
            await session.save_checkpoint(state_of(step), step)
            drawn = (random.random(), np.random.random())
            if step == 3:
                expected = drawn
    async with AsyncSessionManager(config, run_name="r") as session:
        found = await session.restore_checkpoint(3)
        assert found is not None
        assert found.state is not None
        assert (found.state["step"], found.checkpoint.attempt) == (3, 1)
        assert (random.random(), np.random.random()) == expected
        assert steps(session) == [1, 2, 3]
        session.log_metrics({"loss": 40.0}, 4)
        await session.save_checkpoint(state_of(40), 4)
        state = random.getstate()
        assert await session.restore_checkpoint("latest") is not None
        assert await session.restore_checkpoint(1) is not None
        assert random.getstate() == state
        assert steps(session) == [1, 2, 3, 4]
    assert rows(session) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


@pytest.mark.requirement("CKPT-6")
async def test_whether_the_run_goes_on_from_it_may_be_said(config: AppConfig) -> None:
    """One that is only read changes nothing; one that is resumed late does; none of another run."""
    async with AsyncSessionManager(config, run_name="other") as session:
        foreign = await session.save_checkpoint(state_of(1), 1)
        assert foreign is not None
    async with AsyncSessionManager(config, run_name="r") as session:
        for step in (1, 2, 3):
            session.log_metrics({"loss": float(step)}, step)
            await session.save_checkpoint(state_of(step), step)
    async with AsyncSessionManager(config, run_name="r") as session:
        state = random.getstate()
        assert await session.restore_checkpoint(1, resume=False) is not None
        read = await session.restore_checkpoint(foreign.path)
        assert read is not None
        assert random.getstate() == state
        with pytest.raises(CheckpointError, match="another run"):
            await session.restore_checkpoint(foreign.path, resume=True)
        assert steps(session) == [1, 2, 3]
        session.log_metrics({"loss": 9.0}, 4)
        assert await session.restore_checkpoint(2, resume=True) is not None
        assert steps(session) == [1, 2]
    assert rows(session) == [(1, 1.0), (2, 2.0)]


@pytest.mark.requirement("CKPT-5", "CKPT-6")
async def test_a_resumed_run_saves_at_the_same_steps(config: AppConfig) -> None:
    """What is due is counted from the checkpoint, which is not saved again."""
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(4, state={"a": 1}, at_end=False, keep_last=None)
        for step in range(1, 11):
            await session.checkpoint_if_due(step)
    assert steps(session) == [4, 8]
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(4, state={"a": 2}, keep_last=None)
        found = await session.restore_checkpoint()
        assert found is not None
        assert found.step == 8
        due = [step for step in range(9, 21) if await session.checkpoint_if_due(step)]
        assert due == [12, 16, 20]
    assert steps(session) == [4, 8, 12, 16, 20]


@pytest.mark.requirement("CKPT-6")
async def test_one_that_does_not_verify_is_passed_over_and_said(
    config: AppConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The next older one is restored; the journal has what was wrong."""
    async with AsyncSessionManager(config, run_name="r") as session:
        for step in (1, 2):
            await session.save_checkpoint(state_of(step), step)
    damaged = Path(session.model_dir, "checkpoint_2.ckpt", "state.json")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b" ")
    async with AsyncSessionManager(config, run_name="r") as session:
        caplog.clear()
        found = await session.restore_checkpoint()
        assert found is not None
        assert found.step == 1
        assert len(caplog.records) == 1
        assert "checkpoint_2.ckpt.corrupt" in names(session)
    (event,) = events(session, "checkpoint_failed")
    assert event["path"] == "checkpoint_2.ckpt"


@pytest.mark.requirement("CKPT-6")
def test_the_blocking_face_does_the_same(config: AppConfig) -> None:
    """Saved, due, restored, from a script."""
    with SessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(5, state=lambda: state_of(1))
        saved = session.save_checkpoint(state_of(3), 3, {"loss": 1.0}, copy=False)
        assert saved is not None
        assert saved.metrics == {"loss": 1.0}
        assert session.checkpoint_if_due(4) is None
        assert session.checkpoint_if_due(5) is not None
        session.save_final_model(state_of(9))
    assert steps(session) == [3, 5]
    with SessionManager(config, run_name="r") as session:
        found = session.restore_checkpoint("latest")
        assert found is not None
        assert found.state is not None
        assert np.array_equal(found.state["weights"], state_of(1)["weights"])


@pytest.mark.requirement("CKPT-4")
def test_threads_of_the_blocking_face_save_one_after_the_other(config: AppConfig) -> None:
    """Each gets its checkpoint, and all of them are there."""
    with SessionManager(config, run_name="r") as session:
        saved: list[int | None] = []

        def save(step: int) -> None:
            found = session.save_checkpoint(state_of(step), step)
            saved.append(found and found.step)

        threads = [threading.Thread(target=partial(save, step)) for step in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(step for step in saved if step is not None) == list(range(8))
    assert steps(session) == list(range(8))


@pytest.mark.requirement("CKPT-6")
def test_a_step_of_any_whole_kind_is_restored_and_what_is_none_is_said(config: AppConfig) -> None:
    """A step may be numpy's; what is neither name, step nor path is a `TypeError`."""
    with SessionManager(config, run_name="r") as session:
        session.save_checkpoint({"a": 1}, 1)
        restored = session.restore_checkpoint(np.int64(1))  # type: ignore[arg-type]
        assert restored is not None
        assert restored.step == 1
        for wrong in (None, 1.5, b"latest", ["latest"]):
            with pytest.raises(TypeError, match="which must be"):
                session.restore_checkpoint(wrong)  # type: ignore[arg-type]


@pytest.mark.requirement("CKPT-4")
def test_a_step_or_a_name_that_no_manifest_holds_is_refused_at_the_call(config: AppConfig) -> None:
    """A step of more than 64 bits, and a metric's name that is too long or no text."""
    with SessionManager(config, run_name="r") as session:
        with pytest.raises(ValueError, match="below 2"):
            session.save_checkpoint({"a": 1}, 2**63)
        for name in ("x" * 4097, "\ud800"):
            with pytest.raises(ValueError, match="name must be a text"):
                session.save_checkpoint({"a": 1}, 1, {name: 1.0})
        assert steps(session) == []


@pytest.mark.requirement("CKPT-7")
def test_a_run_that_has_no_checkpoint_yet_begins_again(config: AppConfig) -> None:
    """What the earlier attempt has logged is superseded as a whole, rows without a step too; not
    where the program only looks."""
    with SessionManager(config, run_name="r") as session:
        session.log_metrics({"loss": 1.0})
        session.log_metrics({"loss": 1.0}, step=7)
    with SessionManager(config, run_name="r") as session:
        assert session.restore_checkpoint(resume=False) is None
        assert len(list(read_run(session.run_artifact_dir).rows())) == 2
        assert session.restore_checkpoint() is None
        session.log_metrics({"loss": 2.0}, step=1)
        session.flush()
        seen = list(read_run(session.run_artifact_dir).rows())
    assert [(row.step, row.values) for row in seen] == [(1, {"loss": 2.0})]
