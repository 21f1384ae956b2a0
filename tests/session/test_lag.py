"""What a session says of its loop's lag: in its summary, in the journal, in `keisei show`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from typer.testing import CliRunner

from keisei import AppConfig, AsyncSessionManager, SessionManager
from keisei.cli import show  # noqa: F401 - registers the command
from keisei.cli.program import app
from keisei.journal.reader import read_run
from keisei.monitoring import sharing
from tests.conftest import MakeConfig
from tests.support.forks import in_child
from tests.support.threads import off_loop

THRESHOLD = 0.05
HELD = 0.4
LIMIT = 30.0


@pytest.fixture
def config(make_config: MakeConfig) -> AppConfig:
    """A config with a low threshold."""
    return make_config(monitoring={"lag": True, "lag_threshold": THRESHOLD})


def hold_the_loop(seconds: float = HELD) -> None:
    """Block, as a careless program does."""
    time.sleep(seconds)


def logged(directory: str, name: str) -> list[Any]:
    """Return what the events of this name say."""
    found = off_loop(lambda: list(read_run(directory).events()))
    return [event.data for event in found if event.name == name]


def held(directory: str) -> int:
    """Return how many events there are of stalls as long as `hold_the_loop` makes them."""
    return sum(stall["seconds"] >= HELD - THRESHOLD for stall in logged(directory, "stall"))


def row_of(lag: Any, function: str = "hold_the_loop") -> dict[str, Any]:
    """Return the row of a function: on a busy machine there are others, too."""
    (row,) = [row for row in lag["functions"] if row["function"] == function]
    return dict(row)


async def watchdogs_are_gone() -> None:
    """Wait until no loop is watched."""
    with anyio.fail_after(LIMIT):
        while any(thread.name == "keisei-lag" for thread in threading.enumerate()):
            await anyio.sleep(0.01)


@pytest.mark.requirement("MON-2")
async def test_what_holds_the_loop_is_said(config: AppConfig) -> None:
    """As an event at once, as a row of the summary, and as the attempt's table at the end."""
    async with AsyncSessionManager(config) as session:
        await anyio.sleep(2 * THRESHOLD)
        hold_the_loop()
        with anyio.fail_after(LIMIT):
            while not session.get_session_summary()["lag"]["functions"]:
                await anyio.sleep(0.01)
        await session.flush()
        stalls = logged(session.run_artifact_dir, "stall")
    (stall,) = [stall for stall in stalls if stall["function"] == "hold_the_loop"]
    assert stall["cause"] == "code"
    assert stall["file"] == __file__
    assert stall["seconds"] >= HELD - THRESHOLD
    lag = session.get_session_summary()["lag"]
    assert row_of(lag)["causes"] == {"code": 1}
    assert logged(session.run_artifact_dir, "usage.lag")[-1] == lag
    assert json.loads(json.dumps(lag)) == lag


async def test_what_holds_the_loop_until_the_end_is_said(config: AppConfig) -> None:
    """The body's last stall counts, though the loop does not turn before the session ends."""
    async with AsyncSessionManager(config) as session:
        await anyio.sleep(2 * THRESHOLD)
        hold_the_loop()
    assert row_of(session.get_session_summary()["lag"])["count"] == 1
    assert row_of(logged(session.run_artifact_dir, "usage.lag")[-1])["count"] == 1
    await watchdogs_are_gone()


async def test_each_session_hears_of_the_stalls_of_its_time(config: AppConfig) -> None:
    """Those of one loop share a watchdog; what was before a session, or after it, is not its."""
    await watchdogs_are_gone()
    async with AsyncSessionManager(config, run_name="outer") as outer:
        hold_the_loop()
        async with AsyncSessionManager(config, run_name="inner") as inner:
            assert [t.name for t in threading.enumerate()].count("keisei-lag") == 1
            hold_the_loop()
        hold_the_loop()
    assert held(inner.run_artifact_dir) >= 1
    assert row_of(inner.get_session_summary()["lag"])["count"] == 1
    assert held(outer.run_artifact_dir) >= held(inner.run_artifact_dir) + 2
    await watchdogs_are_gone()


async def test_a_session_that_is_entered_by_what_holds_the_loop(config: AppConfig) -> None:
    """What held the loop before the session was there is none of its stalls."""
    await watchdogs_are_gone()
    heard: list[Any] = []
    first = sharing.watch(THRESHOLD, heard.append)
    await anyio.sleep(2 * THRESHOLD)
    hold_the_loop()
    late: list[Any] = []
    second = sharing.watch(THRESHOLD, late.append)
    await anyio.sleep(THRESHOLD)
    for one in (second, first):
        one.stop()
        await anyio.to_thread.run_sync(one.settle, LIMIT)
    assert any(stall.seconds >= HELD - THRESHOLD for stall in heard)
    assert not any(stall.frame and stall.frame.function == "hold_the_loop" for stall in late)


async def test_many_stalls_are_few_events(config: AppConfig) -> None:
    """A function has some events in a minute; what is left out is counted."""
    async with AsyncSessionManager(config) as session:
        await anyio.sleep(2 * THRESHOLD)
        for _ in range(8):
            hold_the_loop(2 * THRESHOLD)
            await anyio.sleep(THRESHOLD)
    lag = session.get_session_summary()["lag"]
    events = [
        stall
        for stall in logged(session.run_artifact_dir, "stall")
        if stall["function"] == "hold_the_loop"
    ]
    assert len(events) <= 5
    assert lag["left_out"] >= row_of(lag)["count"] - len(events)
    assert lag["stalls"] == len(logged(session.run_artifact_dir, "stall")) + lag["left_out"]


async def test_it_can_be_switched_off(make_config: MakeConfig) -> None:
    """Then no loop is watched."""
    await watchdogs_are_gone()
    async with AsyncSessionManager(make_config(monitoring={"lag": False})) as session:
        assert not any(thread.name == "keisei-lag" for thread in threading.enumerate())
        assert session.get_session_summary()["lag"] is None


def test_the_blocking_face_has_no_loop(config: AppConfig) -> None:
    """The loop that it leases for its calls is not the program's."""
    with SessionManager(config) as session:
        session.log_metrics({"loss": 1.0})
        hold_the_loop()
        assert not any(thread.name == "keisei-lag" for thread in threading.enumerate())
    assert session.get_session_summary()["lag"] is None
    assert logged(session.run_artifact_dir, "usage.lag") == []


async def test_a_session_without_a_stall_logs_nothing(make_config: MakeConfig) -> None:
    """No journal is made for it."""
    config = make_config(monitoring={"lag": True, "lag_threshold": 3600})
    async with AsyncSessionManager(config) as session:
        await anyio.sleep(THRESHOLD)
    assert not list(Path(session.run_artifact_dir).glob("*.journal"))
    assert session.get_session_summary()["lag"]["stalls"] == 0


async def test_secrets_are_hidden(config: AppConfig, tmp_path: Path) -> None:
    """In a path, too."""
    code = compile("import time\ndef held():\n    time.sleep(0.3)", "/x/sk-" + 48 * "a", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    async with AsyncSessionManager(config) as session:
        await anyio.sleep(2 * THRESHOLD)
        names["held"]()
    row = row_of(session.get_session_summary()["lag"], "held")
    assert "aaaa" not in row["file"]
    assert "aaaa" not in json.dumps(logged(session.run_artifact_dir, "stall"))


def test_a_loop_that_is_closed_is_watched_no_longer(config: AppConfig) -> None:
    """A session that never came to its end leaves no thread, and no callback at the collector."""
    callbacks = list(gc.callbacks)

    async def begin() -> AsyncSessionManager[AppConfig]:
        session = AsyncSessionManager(config)
        await session.__aenter__()
        return session

    session = asyncio.run(begin())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "keisei-lag"]
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert gc.callbacks == callbacks
    assert not sharing._shared
    asyncio.run(session.finalize_session("cancelled"))


async def test_a_forked_child_is_left_alone(config: AppConfig) -> None:
    """It keeps neither a callback nor a descriptor, and is not held up by a lock."""
    async with AsyncSessionManager(config) as session:
        await anyio.sleep(2 * THRESHOLD)

        def looked() -> tuple[int, int, bool]:
            links = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
            schedules = sum(link.endswith("schedstat") for link in links)
            ours = [c for c in gc.callbacks if "Watchdog" in getattr(c, "__qualname__", "")]
            session._usage.leave_loop()
            return len(ours), schedules, bool(sharing._shared)

        assert in_child(looked) == "returned (0, 0, False)"
        hold_the_loop()
    assert held(session.run_artifact_dir) >= 1  # the parent's goes on


KILLED = """
import os, signal, time
import anyio
from keisei import AppConfig, AsyncSessionManager

def hold_the_loop():
    time.sleep(0.3)

async def main():
    config = AppConfig(monitoring={"lag_threshold": 0.05})
    async with AsyncSessionManager(config, run_name="r") as session:
        for number in range(8):
            await anyio.sleep(0.1)
            hold_the_loop()
        await anyio.sleep(0.1)
        await session.flush()
        if session.get_session_summary()["attempt"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


def test_keisei_show_tells_it_over_all_attempts(tmp_path: Path) -> None:
    """One that was killed has logged no table; what it has logged counts."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED]
    environ = {**os.environ, "KEISEI_LOG_DIR": str(tmp_path / "runs")}
    codes = [subprocess.run(command, env=environ).returncode for _ in range(2)]
    assert codes == [-signal.SIGKILL, 0]
    directory = tmp_path / "runs" / "r"
    runner = CliRunner()
    shown = runner.invoke(app, ["show", str(directory), "--json"])
    row = row_of(json.loads(shown.stdout)["lag"])
    assert 10 <= row["count"] <= 13 + 3  # five events of the killed one, and all of the other
    assert row["longest_s"] >= 0.3 - THRESHOLD
    short = runner.invoke(app, ["show", str(directory)]).stdout
    assert "lag" in short
    whole = runner.invoke(app, ["show", str(directory), "--lag"]).stdout
    assert "hold_the_loop" in whole
    assert "code" in whole


async def test_keisei_show_without_a_stall(make_config: MakeConfig) -> None:
    """It says so."""
    async with AsyncSessionManager(make_config(monitoring={"lag": False})) as session:
        pass
    runner = CliRunner()
    directory = session.run_artifact_dir
    shown = off_loop(lambda: runner.invoke(app, ["show", directory, "--lag"]))
    assert "No stall" in shown.stdout
    shown = off_loop(lambda: runner.invoke(app, ["show", directory, "--json"]))
    assert json.loads(shown.stdout)["lag"] is None
