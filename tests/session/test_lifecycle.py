"""A session's life from entry to end: the order, the truth about the end, and cancellation."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import (
    AsyncSessionManager,
    ConfigSaveError,
    InvalidStatusError,
    SessionEndedError,
    SessionInUseError,
    SessionManager,
)
from keisei.testing import MemoryTracker
from tests.conftest import MakeConfig
from tests.support.session_files import record_of
from tests.support.threads import still_there

SUMMARY = [
    "run_name",
    "run_artifact_dir",
    "model_dir",
    "log_file_path",
    "eval_log_file_path",
    "is_wandb_active",
    "seed",
    "device",
    "session_id",
    "attempt",
    "status",
    "started_at",
    "duration_s",
    "wandb_url",
]


@pytest.mark.requirement("FACE-3", "FACE-4", "STATE-1")
async def test_a_whole_life(make_config: MakeConfig) -> None:
    """Entry takes every step, the body runs in an active session, the way out ends it."""
    session = AsyncSessionManager(make_config(env={"seed": 5}))
    statuses = [session.status]
    assert session.state == dict.fromkeys(session.state, False)
    async with session as entered:
        assert entered is session
        statuses.append(session.status)
        assert session.state == {
            "directories_setup": True,
            "wandb_initialized": True,
            "config_saved": True,
            "seeding_setup": True,
            "session_active": True,
        }
        assert record_of(session)["status"] == "running"
    statuses.append(session.status)
    assert statuses == ["created", "running", "completed"]
    assert session.state["session_active"] is False
    assert record_of(session)["status"] == "completed"


@pytest.mark.requirement("FACE-3")
async def test_the_steps_come_in_the_documented_order(make_config: MakeConfig) -> None:
    """Directories, W&B, config, seeding, start: each as its own method."""
    taken = []

    class Watched(AsyncSessionManager[Any]):
        """Notes its own steps."""

        async def setup_directories(self) -> dict[str, str]:
            taken.append("directories")
            return await super().setup_directories()

        async def setup_wandb(self) -> bool:
            taken.append("wandb")
            return await super().setup_wandb()

        async def save_effective_config(self) -> None:
            taken.append("config")
            await super().save_effective_config()

        async def setup_seeding(self) -> None:
            taken.append("seeding")
            await super().setup_seeding()

        async def log_session_start(self) -> None:
            taken.append("start")
            await super().log_session_start()

    async with Watched(make_config()):
        assert taken == ["directories", "wandb", "config", "seeding", "start"]


@pytest.mark.requirement("FACE-3", "FIN-1")
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("boom"), "failed"),
        (KeyboardInterrupt(), "cancelled"),
        (SystemExit(0), "completed"),
        (SystemExit(3), "failed"),
        (asyncio.CancelledError(), "cancelled"),
        (ExceptionGroup("g", [ValueError()]), "failed"),
        (BaseExceptionGroup("g", [KeyboardInterrupt(), asyncio.CancelledError()]), "cancelled"),
        (BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError()]), "failed"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_the_end_is_the_truth_about_the_body(
    make_config: MakeConfig, error: BaseException, status: str
) -> None:
    """What leaves the body decides the status, and goes on as it is."""
    session = AsyncSessionManager(make_config())
    caught: BaseException | None = None
    try:
        async with session:
            raise error
    except BaseException as exc:
        caught = exc
    assert caught is error
    assert session.status == record_of(session)["status"] == status
    log = Path(session.log_file_path).read_text(encoding="utf-8")
    assert f", {status} after " in log.splitlines()[-1]


@pytest.mark.requirement("FIN-1")
async def test_a_manual_end_sees_the_exception_on_its_way_out(make_config: MakeConfig) -> None:
    """`finalize_session()` in a `finally` calls a crash a failure."""
    session = AsyncSessionManager(make_config())
    with pytest.raises(ValueError, match="boom"):
        try:
            await session.setup_directories()
            raise ValueError("boom")
        finally:
            assert await session.finalize_session() == "failed"
    assert record_of(session)["status"] == "failed"


@pytest.mark.requirement("FIN-1")
async def test_an_error_that_was_handled_before_the_session_is_no_news(
    make_config: MakeConfig,
) -> None:
    """A session made and ended while an older error is handled has completed."""
    try:
        raise ValueError("an earlier try")
    except ValueError:
        session = AsyncSessionManager(make_config())
        await session.setup_directories()
        assert await session.finalize_session() == "completed"


@pytest.mark.requirement("FIN-1")
@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "preempted"])
async def test_the_callers_word_decides(make_config: MakeConfig, status: Any) -> None:
    """A given status is the end, on disk too, and the way out does not change it."""
    async with AsyncSessionManager(make_config()) as session:
        assert await session.finalize_session(status) == status
    assert session.status == record_of(session)["status"] == status


async def test_a_status_that_is_no_end_is_refused(make_config: MakeConfig) -> None:
    """A typing error does not end the session."""
    async with AsyncSessionManager(make_config()) as session:
        with pytest.raises(InvalidStatusError, match="'done'.*completed, failed"):
            await session.finalize_session("done")  # type: ignore[arg-type]
        assert session.status == "running"


@pytest.mark.requirement("FIN-3")
async def test_ending_before_any_set_up_is_fine(make_config: MakeConfig, tmp_path: Path) -> None:
    """It makes nothing, and is the end."""
    session = AsyncSessionManager(make_config())
    assert await session.finalize_session() == "completed"
    assert await session.finalize_session("failed") == "completed"
    assert not (tmp_path / "runs").exists()


@pytest.mark.requirement("FIN-3")
async def test_a_hundred_callers_see_one_end(make_config: MakeConfig) -> None:
    """Whoever comes first ends the session; all get that status, and one end line is written."""
    session = AsyncSessionManager(make_config())
    tracker = MemoryTracker()
    await session.setup_directories()
    await session.setup_remote_logging(tracker)
    ends = set()

    async def end(status: Any) -> None:
        ends.add(await session.finalize_session(status))

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(end, "failed" if number % 2 else "cancelled")
    assert len(ends) == 1
    assert ends == {record_of(session)["status"]}
    assert tracker.runs[0].ends == list(ends)
    log = Path(session.log_file_path).read_text(encoding="utf-8")
    assert log.count("session ended") == 1


@pytest.mark.requirement("FIN-3")
async def test_a_cancelled_scope_still_ends_the_session(make_config: MakeConfig) -> None:
    """The end survives the cancellation that caused it, and the cancellation goes on."""
    session = AsyncSessionManager(make_config())
    tracker = MemoryTracker()
    passed = False
    with anyio.CancelScope() as scope:
        async with session:
            await session.setup_remote_logging(tracker)
            scope.cancel()
            await anyio.sleep_forever()
        passed = True
    assert scope.cancelled_caught
    assert not passed
    assert session.status == record_of(session)["status"] == "cancelled"
    assert tracker.runs[0].ends == ["cancelled"]


@pytest.mark.requirement("FIN-3")
@pytest.mark.parametrize("uvloop", [False, True])
def test_a_plain_task_cancel_still_ends_the_session(make_config: MakeConfig, uvloop: bool) -> None:
    """`Task.cancel()`, which no shield of anyio's stops, leaves a session that is ended, too."""
    session = AsyncSessionManager(make_config())

    async def body() -> None:
        async with session:
            await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.create_task(body())
        while session.status != "running" or not session.state["session_active"]:
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(50):  # again and again, while the end is being written
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    anyio.run(main, backend_options={"use_uvloop": uvloop})
    assert session.status == record_of(session)["status"] == "cancelled"


@pytest.mark.requirement("FACE-3")
async def test_a_failed_entry_ends_what_it_started(make_config: MakeConfig) -> None:
    """Where the config cannot be saved, the run is `failed`, its owner gone, its name free."""
    config = make_config()
    session = AsyncSessionManager(config, run_name="r")
    config.__dict__["env"] = object()  # has no JSON form
    with pytest.raises(ConfigSaveError, match="no JSON form"):
        await session.__aenter__()
    assert session.status == record_of(session)["status"] == "failed"
    assert not Path(session.run_artifact_dir, "effective_config.json").exists()
    async with AsyncSessionManager(make_config(), run_name="r") as second:
        assert second.get_session_summary()["attempt"] == 2


@pytest.mark.requirement("CFG-3", "CFG-4", "CFG-5")
async def test_the_config_is_written_whole_as_it_is_when_it_is_saved(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """The file equals the config, also after a change of the object and a second save."""
    config = make_config(env={"seed": 9}, wandb={"notes": "caf\u00e9"})
    session = AsyncSessionManager(config, run_name="r")
    await session.setup_directories()
    await session.save_effective_config()
    path = Path(session.run_artifact_dir, "effective_config.json")
    text = path.read_bytes()
    assert text.endswith(b"}\n")
    assert type(config).model_validate_json(text) == config
    config.training.total_timesteps = 7
    await session.save_effective_config()
    assert type(config).model_validate_json(path.read_bytes()) == config
    config.training.total_timesteps = 1_000_000
    with suppress(FileNotFoundError):
        for inner in sorted(Path(session.run_artifact_dir).rglob("*"), reverse=True):
            inner.rmdir() if inner.is_dir() else inner.unlink()
        Path(session.run_artifact_dir).rmdir()
    await session.save_effective_config()  # makes the directory again
    assert path.read_bytes() == text
    await session.finalize_session()


@pytest.mark.requirement("CFG-5")
async def test_file_and_trackers_get_the_same_text(make_config: MakeConfig) -> None:
    """What a tracker is told is what stands in the file, and is serialised once for each."""
    count = 0
    config = make_config()

    class Counting(type(config)):  # type: ignore[misc]
        """A config that counts how often it is serialised."""

        def model_dump(self, **options: Any) -> dict[str, Any]:
            nonlocal count
            count += 1
            dumped: dict[str, Any] = super().model_dump(**options)
            return dumped

    tracker = MemoryTracker()
    session = AsyncSessionManager(Counting.model_validate(config.model_dump()))
    await session.setup_directories()
    await session.setup_remote_logging(tracker)
    await session.save_effective_config()
    path = Path(session.run_artifact_dir, "effective_config.json")
    assert tracker.runs[0].info.config_text == path.read_text(encoding="utf-8")
    assert count == 2
    await session.finalize_session()


@pytest.mark.requirement("CFG-4")
async def test_a_config_that_cannot_be_written_is_a_typed_error(make_config: MakeConfig) -> None:
    """The message names path and cause, the old file stays, no temporary one is left."""
    session = AsyncSessionManager(make_config())
    await session.setup_directories()
    in_the_way = Path(session.run_artifact_dir, "effective_config.json")
    in_the_way.mkdir()
    (in_the_way / "x").write_text("")
    with pytest.raises(ConfigSaveError, match="effective_config.json") as caught:
        await session.save_effective_config()
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value.__cause__, OSError)
    assert not [p for p in Path(session.run_artifact_dir).iterdir() if p.name.endswith(".tmp")]
    assert session.state["config_saved"] is False
    await session.finalize_session()


async def test_trackers_that_nobody_waits_for_are_asked_last(make_config: MakeConfig) -> None:
    """With `tracking.wait` off a session whose entry fails has bothered no tracker."""
    config = make_config(tracking={"wait": False, "trackers": ["tensorboard"]})
    session = AsyncSessionManager(config)
    await session.setup_directories()
    Path(session.run_artifact_dir, "effective_config.json").mkdir()
    with pytest.raises(ConfigSaveError):
        await session.__aenter__()
    assert session.get_session_summary()["trackers"] == {}


@pytest.mark.requirement("SUM-1")
async def test_the_summary_is_plain_data_at_every_point(make_config: MakeConfig) -> None:
    """What is not set up yet is `None`; the rest is what the properties say."""
    session = AsyncSessionManager(make_config(env={"seed": 4, "device": "mps"}))
    before = json.loads(json.dumps(session.get_session_summary()))
    assert set(SUMMARY) <= set(before)
    assert before["run_artifact_dir"] is before["is_wandb_active"] is before["started_at"] is None
    assert before["status"] == "created"
    async with session:
        during = json.loads(json.dumps(session.get_session_summary()))
        assert during["status"] == "running"
        assert during["duration_s"] >= 0
        assert during["is_wandb_active"] is False
    after = session.get_session_summary()
    assert json.loads(json.dumps(after)) == after
    for name in SUMMARY:
        if hasattr(session, name):
            assert after[name] == getattr(session, name), name
    assert (after["seed"], after["device"]) == (4, "mps")
    assert after["duration_s"] == session.get_session_summary()["duration_s"]


async def test_sessions_of_one_task_group_do_not_touch_each_other(make_config: MakeConfig) -> None:
    """Twenty at once: one fails, nineteen complete, and no thread is left."""
    config = make_config()
    sessions: list[AsyncSessionManager[Any]] = []

    async def life(number: int) -> None:
        session = AsyncSessionManager(config, run_name=f"r{number}")
        sessions.append(session)
        with suppress(ValueError):
            async with session:
                await anyio.sleep(0.001)
                if number == 7:
                    raise ValueError("this one")

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(life, number)
    ends = {session.run_name: record_of(session)["status"] for session in sessions}
    assert ends.pop("r7") == "failed"
    assert set(ends.values()) == {"completed"}
    assert len({session.session_id for session in sessions}) == 20
    assert still_there() == []


@pytest.mark.requirement("FIN-4")
def test_a_session_lives_off_the_main_thread(make_config: MakeConfig) -> None:
    """No alarm and no signal handler: a thread of the user's can run a whole session."""
    import signal

    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    statuses: list[str] = []

    def work() -> None:
        async def main() -> None:
            async with AsyncSessionManager(make_config()) as session:
                pass
            statuses.append(session.status)

        anyio.run(main)
        with SessionManager(make_config()) as blocking:
            pass
        statuses.append(blocking.status)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert statuses == ["completed", "completed"]
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers


async def test_an_end_that_cannot_be_written_is_logged_and_not_raised(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that fails at the very end does not hide how the body ended."""
    session = AsyncSessionManager(make_config())
    await session.setup_directories()
    Path(session.run_artifact_dir, ".session.json.tmp").mkdir()  # in the way of a new one
    with caplog.at_level(logging.ERROR):
        assert await session.finalize_session() == "completed"
    assert "cannot be recorded" in caplog.text


@pytest.mark.requirement("FACE-3")
async def test_a_session_is_entered_once(make_config: MakeConfig) -> None:
    """Inside its block, and after it, an error says what to do; the session itself goes on."""
    session = AsyncSessionManager(make_config(), run_name="r")
    async with session:
        with pytest.raises(SessionInUseError, match="entered already.*another run name"):
            await session.__aenter__()
        session.log_metrics({"x": 1}, 1)
        await session.flush()
    with pytest.raises(SessionEndedError, match="the same run name"):
        await session.__aenter__()
    assert session.status == "completed"


def test_the_blocking_face_is_entered_once(make_config: MakeConfig) -> None:
    """The same in a script."""
    session = SessionManager(make_config(), run_name="r")
    with session:
        with pytest.raises(SessionInUseError, match="entered already"):
            session.__enter__()
        session.log_metrics({"x": 1}, 1)
    with pytest.raises(SessionEndedError, match="the same run name"):
        session.__enter__()


async def test_what_comes_after_the_end_in_the_block_says_what_to_do(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A block that ends the session and then fails stays completed, and that is said."""
    session = AsyncSessionManager(make_config(), run_name="r")
    with pytest.raises(SessionEndedError, match="or make a new session"):
        async with session:
            await session.finalize_session()
            session.log_metrics({"x": 1})
    assert session.status == "completed"
    assert "stays recorded as completed" in caplog.text


@pytest.mark.parametrize(("backend", "named"), [(5, "not int"), (dict, "the class dict: call it")])
async def test_what_is_no_tracker_is_named(
    make_config: MakeConfig, backend: Any, named: str
) -> None:
    """The argument, and what it was given."""
    async with AsyncSessionManager(make_config()) as session:
        with pytest.raises(TypeError, match=f"backend must be a tracker's name.*{named}"):
            await session.setup_remote_logging(backend)


async def test_an_agent_that_is_no_mapping_is_named(make_config: MakeConfig) -> None:
    """The argument, and what belongs there."""
    agent: Any = "PPO"
    async with AsyncSessionManager(make_config()) as session:
        with pytest.raises(TypeError, match="agent_info must be a mapping with 'type'"):
            await session.log_session_info(print, agent)
