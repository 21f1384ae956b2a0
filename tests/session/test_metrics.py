"""A session's metrics and events: logged by a plain call, durable when `flush` returns."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import anyio
import anyio.to_thread
import pytest

from keisei import AsyncSessionManager, NotReadyError, SessionEndedError, SessionManager
from keisei.errors import JournalError
from keisei.journal.reader import Event, Row, read_run
from keisei.session import watching
from tests.conftest import MakeConfig
from tests.support.session_files import record_of


@dataclass
class Read:
    """What a session's journal holds, read off the loop."""

    taken: list[Row]
    told: list[Event]

    def rows(self) -> list[Row]:
        """Return the rows that no later attempt supersedes."""
        return [row for row in self.taken if not row.superseded]

    def columns(self, key: str) -> tuple[list[Any], list[Any]]:
        """Return the steps and values of a metric."""
        rows = [row for row in self.rows() if key in row.values]
        return [row.step for row in rows], [row.values[key] for row in rows]


async def read(session: AsyncSessionManager[Any]) -> Read:
    """Read a session's journal."""

    def blocking() -> Read:
        run = read_run(session.run_artifact_dir)
        return Read(list(run.rows(include_superseded=True)), list(run.events()))

    return await anyio.to_thread.run_sync(blocking)


async def test_rows_and_events_are_there_when_flush_returns(make_config: MakeConfig) -> None:
    """Numbers of all kinds, nested names and events, read back from a session that still runs."""
    async with AsyncSessionManager(make_config()) as session:
        session.log_metrics({"loss": 0.5, "grad": {"norm": 2}}, step=1)
        session.log_metrics({"loss": math.inf, "big": 10**30, "done": True}, step=2)
        session.log_event("checkpoint", {"path": "a.pt"})
        await session.flush()
        run = await read(session)
        assert [(row.step, row.values) for row in run.rows()] == [
            (1, {"loss": 0.5, "grad/norm": 2}),
            (2, {"loss": math.inf, "big": 10**30, "done": True}),
        ]
        assert [(event.name, event.data) for event in run.told] == [
            ("checkpoint", {"path": "a.pt"})
        ]
        assert session.get_session_summary()["journal"]["written"] == 3


async def test_a_flush_without_a_thread_says_so(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directories are set up, and nobody is told that they are not; the rows are kept."""

    def refuse(member: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(watching, "join_threads", refuse)  # whose threads would do

    async with AsyncSessionManager(make_config()) as session:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            session.log_metrics({"x": 1.0})
            with pytest.raises(JournalError, match="no thread can be started"):
                await session.flush()
    assert (await read(session)).columns("x") == ([None], [1.0])


THREADLESS = """
import sys, threading
from keisei import AppConfig, SessionManager

def refuse(self):
    raise RuntimeError("can't start new thread")

config = AppConfig.model_validate({"logging": {"log_dir": sys.argv[1]}})
with SessionManager(config, run_name="r") as session:
    threading.Thread.start = refuse
    session.log_metrics({"x": 1.0})
    session.log_evaluation({"score": 2.0})
"""


def test_an_end_without_a_thread_is_a_whole_one(tmp_path: Path) -> None:
    """The blocking face ends in the caller's thread: rows, log and record are there."""
    command = [sys.executable, "-c", THREADLESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "r"
    assert json.loads((run / "session.json").read_text())["status"] == "completed"
    assert read_run(run).columns("x")[1] == [1.0]
    assert "2.0" in (run / "evaluation.log").read_text()
    assert "session ended" in (run / "training.log").read_text()


@pytest.mark.parametrize("face", [AsyncSessionManager, SessionManager])
def test_a_session_is_not_pickled(make_config: MakeConfig, face: Any) -> None:
    """For a worker or an actor, the error says what to send instead; a copy is refused too."""
    session = face(make_config())
    for send in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"cannot be pickled.*session.handle\(\)"):
            send(session)


async def test_what_is_no_number_names_its_key(make_config: MakeConfig) -> None:
    """A wrong value is an error at the call, and nothing of its row is kept."""
    async with AsyncSessionManager(make_config()) as session:
        with pytest.raises(TypeError, match="a/b"):
            session.log_metrics({"a": {"b": "text"}})
        with pytest.raises(TypeError, match="bad"):
            session.log_event("bad", object())
        await session.flush()
        assert list((await read(session)).rows()) == []


@pytest.mark.parametrize("face", [AsyncSessionManager, SessionManager])
def test_it_needs_directories_and_comes_before_the_end(make_config: MakeConfig, face: Any) -> None:
    """Too early names the missing step, too late the end; both are typed."""
    session = face(make_config())
    calls: list[Callable[[], object]] = [
        lambda: session.log_metrics({"a": 1.0}),
        lambda: session.log_event("a"),
    ]
    for call in calls:
        with pytest.raises(NotReadyError, match="setup_directories"):
            call()
    with SessionManager(make_config()) as ended:
        ended.log_metrics({"a": 1.0})
    calls = [lambda: ended.log_metrics({"a": 1.0}), lambda: ended.log_event("a"), ended.flush]
    for call in calls:
        with pytest.raises(SessionEndedError, match="completed"):
            call()


async def test_the_end_writes_what_was_logged(make_config: MakeConfig) -> None:
    """Without a flush, also where the body fails; the writer's threads are gone then."""
    session = AsyncSessionManager(make_config(journal={"max_delay": 3600}))
    with pytest.raises(ValueError, match="boom"):
        async with session:
            for step in range(1000):
                session.log_metrics({"a": float(step)}, step)
            raise ValueError("boom")
    assert (await read(session)).columns("a")[1] == [float(n) for n in range(1000)]
    assert record_of(session)["status"] == "failed"
    assert not [t for t in threading.enumerate() if t.name.startswith("keisei-writer")]


def test_many_threads_log_into_one_session(make_config: MakeConfig) -> None:
    """Each thread's rows are there, in its order, on the blocking face."""
    with SessionManager(make_config()) as session:

        def work(number: int) -> None:
            for step in range(500):
                session.log_metrics({f"t{number}": step}, step)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        session.flush()
        run = read_run(session.run_artifact_dir)
        for number in range(4):
            assert run.columns(f"t{number}")[1] == list(range(500))


async def test_an_attempt_that_resumes_earlier_supersedes(make_config: MakeConfig) -> None:
    """The merged series is that of an uninterrupted run."""
    for first, last in [(0, 10), (6, 15)]:
        async with AsyncSessionManager(make_config(), run_name="r") as session:
            for step in range(first, last):
                session.log_metrics({"a": float(step), "from": first}, step)
    run = await read(session)
    assert run.columns("a") == (list(range(15)), [float(n) for n in range(15)])
    assert run.columns("from")[1] == [0] * 6 + [6] * 9
    assert sum(row.superseded for row in run.taken) == 4


async def test_a_lost_record_gives_no_attempt_its_predecessors_journal(
    make_config: MakeConfig,
) -> None:
    """Where record and log are gone, the next attempt still gets a journal of its own."""
    for _ in range(2):
        async with AsyncSessionManager(make_config(), run_name="r") as session:
            session.log_metrics({"a": 1.0})
            await session.flush()
        for name in ("session.json", "training.log"):
            Path(session.run_artifact_dir, name).unlink()
    assert len(list((await read(session)).rows())) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_cannot_log(make_config: MakeConfig) -> None:
    """It is the typed error, and the parent's rows are untouched."""
    from tests.support.forks import in_child

    with SessionManager(make_config()) as session:
        session.log_metrics({"a": 1.0})
        assert in_child(lambda: session.log_metrics({"a": 2.0})).startswith("ForkedSessionError")
        assert in_child(lambda: session.log_event("a")).startswith("ForkedSessionError")
        assert in_child(session.flush).startswith("ForkedSessionError")
    assert read_run(session.run_artifact_dir).columns("a")[1] == [1.0]


KILLED = """
import sys, time
from keisei import SessionManager, load_config
config = load_config(overrides={"logging": {"log_dir": "runs", "run_name": "killed"}})
with SessionManager(config) as session:
    step = 0
    while True:
        for _ in range(100):
            session.log_metrics({"a": float(step)}, step)
            step += 1
        session.flush()
        print(step, flush=True)
"""


def test_rows_that_were_flushed_survive_a_kill(tmp_path: Path, make_config: MakeConfig) -> None:
    """SIGKILL in the middle of logging loses no acknowledged row, and the run goes on."""
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        for _ in range(20):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
        acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    steps, values = read_run(tmp_path / "runs" / "killed").columns("a")
    assert len(steps) >= acknowledged
    assert values == [float(step) for step in range(len(steps))]
    with SessionManager(make_config(), run_name="killed") as session:
        session.log_metrics({"a": -1.0}, acknowledged)
    merged = read_run(session.run_artifact_dir).columns("a")[1]
    assert merged == [*map(float, range(acknowledged)), -1.0]


async def test_logging_does_not_hold_the_loop(make_config: MakeConfig) -> None:
    """Ten thousand rows in the middle of other tasks: blockbuster sees no blocking call."""
    async with AsyncSessionManager(make_config(journal={"capacity": 100})) as session:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0)
                ticks += 1

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            for step in range(10_000):
                session.log_metrics({"a": 1.0}, step)
                if step % 50 == 0:
                    await anyio.sleep(0)
            await session.flush()
            group.cancel_scope.cancel()
        counters = session.get_session_summary()["journal"]
        assert counters["logged"] == 10_000
        assert counters["written"] + counters["dropped"] == 10_000
        assert ticks > 100
        json.dumps(session.get_session_summary())


async def test_a_flush_that_is_cancelled_leaves_the_rows(make_config: MakeConfig) -> None:
    """The wait ends with the scope, the rows are written all the same."""
    async with AsyncSessionManager(make_config()) as session:
        session.log_metrics({"a": 1.0})
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.flush()
        assert scope.cancelled_caught
        await session.flush()
    assert (await read(session)).columns("a")[1] == [1.0]


async def test_a_burst_on_the_loop_drops_nothing(make_config: MakeConfig) -> None:
    """A loop that logs 300,000 rows without a pause gets them all written: the thread keeps up."""
    async with AsyncSessionManager(make_config()) as session:
        row = {f"metric_{number}": float(number) for number in range(10)}
        for step in range(300_000):
            session.log_metrics(row, step)
        await session.flush()
        counts = session.get_session_summary()["journal"]
    assert (counts["dropped"], counts["written"]) == (0, 300_000)


async def test_a_restored_checkpoint_is_said_by_the_program(make_config: MakeConfig) -> None:
    """What was logged after its step is superseded, on other axes, too; a text is no step."""
    for first, last in ((0, 10), (5, 12)):
        async with AsyncSessionManager(make_config(), run_name="r") as session:
            if first:
                session.resume_at(first - 1)
                with pytest.raises(TypeError):
                    session.resume_at("4")  # type: ignore[arg-type]
            for step in range(first, last):
                session.log_metrics({"loss": float(step)}, step=step)
                if step % 3 == 0:
                    session.log_metrics({"epoch/loss": 1.0}, step=step // 3)

    def read() -> list[list[int | None]]:
        run = read_run(session.run_artifact_dir)
        return [list(run.columns(key)[0]) for key in ("loss", "epoch/loss")]

    assert await anyio.to_thread.run_sync(read) == [list(range(12)), [0, 1, 2, 3]]
    with pytest.raises(SessionEndedError):
        session.resume_at(3)


async def test_many_sessions_share_few_threads(make_config: MakeConfig) -> None:
    """Forty journals and log files have a clock and a few workers, which end with them."""
    many = 20
    user = logging.getLogger("tests.many")
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(AsyncSessionManager(make_config())) for _ in range(many)
        ]
        for number, session in enumerate(sessions):
            user.addHandler(session.log_handler())
            for step in range(100):
                session.log_metrics({"a": float(number)}, step)
            with session.as_current():
                user.warning("one line")
        for session in sessions:
            await session.flush()
        user.handlers.clear()
        names = [thread.name for thread in threading.enumerate()]
        assert len([name for name in names if name.startswith("keisei-writer")]) <= 5
        for number, session in enumerate(sessions):
            assert (await read(session)).columns("a")[1] == [float(number)] * 100
            log = await anyio.Path(session.log_file_path).read_text(encoding="utf-8")
            assert log.count("one line") == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("keisei-writer")]
