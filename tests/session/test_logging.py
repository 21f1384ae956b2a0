"""What keisei says: to the user's logger, to the training log, and under its own name."""

from __future__ import annotations

import logging
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import AsyncSessionManager, NotReadyError, SessionManager
from keisei.run.status import FinalStatus
from keisei.testing import MemoryRun, MemoryTracker
from keisei.trackers.base import RunInfo
from keisei.trackers.group import WorkerGroup
from tests.conftest import MakeConfig


async def introduce(session: AsyncSessionManager[Any], **details: Any) -> list[str]:
    """Collect the lines that introduce a session."""
    lines: list[str] = []
    await session.log_session_info(lines.append, **details)
    return lines


@pytest.mark.requirement("LOG-1")
async def test_a_fresh_session_is_introduced_line_by_line(make_config: MakeConfig) -> None:
    """Run, directory and config, seed and device, agent, training, fresh start."""
    config = make_config(
        env={"seed": 42, "device": "cuda"},
        training={"total_timesteps": 500, "steps_per_epoch": 50},
    )
    async with AsyncSessionManager(config, run_name="r") as session:
        lines = await introduce(session, agent_info={"type": "PPOAgent", "name": "ShogiAgent"})
    assert len(lines) == 6
    run, place, device, agent, training, start = lines
    assert "r" in run
    assert session.run_artifact_dir in place
    assert os.path.join(session.run_artifact_dir, "effective_config.json") in place
    assert "42" in device
    assert "cuda" in device
    assert "PPOAgent" in agent
    assert "ShogiAgent" in agent
    assert "500" in training
    assert "50" in training
    assert "fresh" in start.lower()


@pytest.mark.requirement("LOG-1")
async def test_a_resumed_session_says_from_where(make_config: MakeConfig) -> None:
    """Checkpoint, timestep and episodes; without seed and agent their words are missing."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        lines = await introduce(
            session,
            resumed_from_checkpoint="/m/checkpoint_1000.ckpt",
            global_timestep=1000,
            total_episodes_completed=37,
        )
    assert len(lines) == 5
    assert "Seed" not in lines[2]
    assert "cpu" in lines[2]
    for word in ("/m/checkpoint_1000.ckpt", "1000", "37"):
        assert word in lines[-1]
    assert "fresh" not in " ".join(lines).lower()


@pytest.mark.parametrize("ended", ["completed", "failed", "cancelled"])
async def test_a_start_that_resumes_a_run_says_so(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, ended: FinalStatus
) -> None:
    """With attempt, the earlier one's status and the last step; after a completed one it warns."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        for step in range(500):
            session.log_metrics({"loss": 1.0}, step)
        session.log_metrics({"epoch/loss": 1.0}, 5)
        await session.finalize_session(ended)
    assert not caplog.records
    caplog.set_level("INFO", "keisei")
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        lines = await introduce(session)
    (said,) = [record for record in caplog.records if record.levelname in ("INFO", "WARNING")]
    assert said.levelname == ("WARNING" if ended == "completed" else "INFO")
    assert ("logging.if_exists to 'number'" in said.getMessage()) is (ended == "completed")
    for text in (said.getMessage(), lines[-1]):
        assert "attempt 2" in text
        assert f"{ended}, the last step logged is 499" in text
    assert "fresh" not in lines[-1]


async def test_a_timestep_without_a_checkpoint_is_no_fresh_start(make_config: MakeConfig) -> None:
    """The program has restored something of its own."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        lines = await introduce(session, global_timestep=1000)
    assert lines[-1] == "Resuming at timestep 1000, 0 episodes completed"


@pytest.mark.requirement("LOG-1")
async def test_an_async_logger_is_awaited(make_config: MakeConfig) -> None:
    """A coroutine function gets every line before the call returns."""
    lines: list[str] = []

    async def log(line: str) -> None:
        await anyio.sleep(0)
        lines.append(line)

    async with AsyncSessionManager(make_config()) as session:
        await session.log_session_info(log)
        assert len(lines) == 5


@pytest.mark.requirement("LOG-1")
async def test_a_logger_that_raises_is_counted(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Every line is tried, one warning is said, and the session goes on."""
    calls = 0

    def log(line: str) -> None:
        nonlocal calls
        calls += 1
        raise OSError("no space left for logs")

    async with AsyncSessionManager(make_config()) as session:
        await session.log_session_info(log)
    assert calls == session.get_session_summary()["logger_errors"] == 5
    assert caplog.text.count("no space left for logs") == 1
    assert session.status == "completed"


@pytest.mark.requirement("LOG-1")
async def test_what_is_no_error_passes_a_logger(make_config: MakeConfig) -> None:
    """A KeyboardInterrupt inside the user's logger is not swallowed."""

    def log(line: str) -> None:
        raise KeyboardInterrupt

    session = AsyncSessionManager(make_config())
    with pytest.raises(KeyboardInterrupt):
        async with session:
            await session.log_session_info(log)
    assert session.status == "cancelled"


async def test_introducing_needs_directories(make_config: MakeConfig) -> None:
    """There is no directory to name before one is set up."""
    with pytest.raises(NotReadyError, match=r"setup_directories\(\)"):
        await AsyncSessionManager(make_config()).log_session_info(print)


@pytest.mark.requirement("LOG-2")
async def test_the_log_has_a_start_and_an_end(make_config: MakeConfig) -> None:
    """Each with a time that has an offset, the name, and what belongs to it."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        await session.log_session_start()  # a second call does nothing
    start, end = Path(session.log_file_path).read_text(encoding="utf-8").splitlines()
    for line in (start, end):
        moment = re.match(r"\[(.+?)\]", line)
        assert moment is not None
        assert datetime.fromisoformat(moment[1]).tzinfo is not None
        assert "run r" in line
    assert session.session_id in start
    assert "completed after " in end


@pytest.mark.requirement("LOG-2")
async def test_a_log_that_cannot_be_written_is_a_warning(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Training goes on without its log."""
    session = AsyncSessionManager(make_config())
    await session.setup_directories()
    log = Path(session.log_file_path)
    log.unlink()
    log.mkdir()
    await session.log_session_start()
    assert session.state["session_active"]
    assert "cannot be logged" in caplog.text
    assert await session.finalize_session() == "completed"


@pytest.mark.requirement("LOG-2")
async def test_a_torn_last_line_is_closed(make_config: MakeConfig) -> None:
    """Half a line of a killed attempt does not swallow the next one's start."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        pass
    log = Path(session.log_file_path)
    log.write_bytes(log.read_bytes() + b"half a li")
    async with AsyncSessionManager(make_config(), run_name="r"):
        pass
    lines = log.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5
    assert lines[2] == "half a li"
    assert "attempt 2" in lines[3]


@pytest.mark.requirement("LOG-3")
async def test_a_line_is_a_line(make_config: MakeConfig) -> None:
    """Newlines, escapes and other controls in values are written as escapes."""
    evil = "x\n[2026] session ended: run r, completed\r\x1b[31m\u2028\x85\x00"
    config = make_config(env={"device": evil})
    async with AsyncSessionManager(config) as session:
        lines = await introduce(
            session,
            agent_info={"type": evil, "name": evil},
            resumed_from_checkpoint=evil,
        )
    for line in lines:
        assert line.isprintable()
        assert len(line.splitlines()) == 1
    assert r"x\n[2026]" in lines[2]


async def test_no_secret_reaches_the_users_logger(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint's URL loses its user-info, and known values of the environment are hidden."""
    monkeypatch.setenv("STORE_PASSWORD", "canary-environment")
    async with AsyncSessionManager(make_config()) as session:
        lines = await introduce(
            session,
            agent_info={"type": "canary-environment", "name": "n"},
            resumed_from_checkpoint="s3://key:canary-url@host/c.ckpt",
        )
    assert "canary" not in " ".join(lines)


@pytest.mark.requirement("LOG-4")
def test_keisei_logs_under_its_own_name_alone(make_config: MakeConfig) -> None:
    """Its level is the config's; the root logger keeps its level and its handlers."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    for level in ("debug", "warning", "critical"):
        SessionManager(make_config(logging={"log_level": level}))
        assert logging.getLogger("keisei").level == getattr(logging, level.upper())
    assert (root.level, list(root.handlers)) == before
    assert logging.getLogger("keisei").handlers == []
    assert logging.getLogger("keisei").propagate


@pytest.mark.requirement("LOG-1")
async def test_the_url_of_a_tracked_run_is_shown(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where W&B gives a URL, the first line and the summary have it."""
    from keisei.training import utils

    class Tracked(MemoryTracker):
        """A tracker with a page to look at."""

        def start(self, run: RunInfo) -> MemoryRun:
            started = super().start(run)
            started.url = "https://wandb.example/r/1"
            return started

    async def setup_wandb(config: Any, run: RunInfo, group: WorkerGroup) -> bool:
        worker = group.open_here("wandb", run, Tracked)
        await worker.attempted.wait()
        return worker.live

    # The documented place to replace a step.
    monkeypatch.setitem(utils.__dict__, "setup_wandb", setup_wandb)
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        assert session.is_wandb_active
        lines = await introduce(session)
    assert lines[0] == "Run: r (https://wandb.example/r/1)"
    assert session.get_session_summary()["wandb_url"] == "https://wandb.example/r/1"


@pytest.mark.parametrize("answer", [True, False])
async def test_what_a_replaced_wandb_step_answers_is_heard(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    """The documented function is called in every session, also where W&B is not asked for."""
    asked: list[str] = []

    async def setup_wandb(config: Any, run: RunInfo, group: WorkerGroup) -> bool:
        asked.append(run.run_name)
        return answer

    monkeypatch.setattr("keisei.training.utils.setup_wandb", setup_wandb)
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        assert session.is_wandb_active is answer
        assert await session.setup_wandb() is answer
        assert session.wandb_run is None
    assert asked == ["r"]
