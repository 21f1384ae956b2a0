"""Crowds and scarcity: races, a thousand sessions, no descriptor, no thread, a jumping clock."""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import AppConfig, AsyncSessionManager, SessionManager, generate_run_name
from keisei.run import names, owned
from tests.conftest import MakeConfig
from tests.support.session_files import record_of
from tests.support.threads import still_there

CROWDS = [
    pytest.param("asyncio", {"use_uvloop": False}, 1_000, id="asyncio"),
    pytest.param("asyncio", {"use_uvloop": True}, 100, id="uvloop"),
    pytest.param("trio", {}, 100, id="trio"),
]
OF_THE_LOOP = 2  # descriptors of the loop's watchdog, which all sessions share


def descriptors() -> int:
    """Count this process's open descriptors."""
    return len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0


@pytest.mark.requirement("FACE-4", "FIN-1")
@pytest.mark.parametrize(("backend", "options", "count"), CROWDS)
def test_a_crowd_is_opened_one_is_killed_and_all_are_closed(
    make_config: MakeConfig, backend: str, options: dict[str, Any], count: int
) -> None:
    """Each ends with its own status, holds no more than a descriptor, and leaves no thread."""
    if options.get("use_uvloop"):
        pytest.importorskip("uvloop")
    config = make_config()
    sessions = [AsyncSessionManager(config, run_name=f"r{number}") for number in range(count)]
    held: list[int] = []

    async def life(session: AsyncSessionManager[Any], opened: Any, go: anyio.Event) -> None:
        async with session:
            await opened.send(None)
            await go.wait()
            if session.run_name == "r7":
                raise RuntimeError("killed")

    async def killed(session: AsyncSessionManager[Any], opened: Any, go: anyio.Event) -> None:
        with pytest.raises(RuntimeError, match="killed"):
            await life(session, opened, go)

    async def main() -> None:
        go = anyio.Event()
        send, receive = anyio.create_memory_object_stream[None](count)
        async with send, receive, anyio.create_task_group() as group:
            before = descriptors()
            for session in sessions:
                group.start_soon(killed if session.run_name == "r7" else life, session, send, go)
            for _ in sessions:
                await receive.receive()
            held.append(descriptors() - before)
            assert {record_of(session)["status"] for session in sessions} == {"running"}
            go.set()

    async def nothing() -> None:
        pass

    anyio.run(nothing, backend=backend, backend_options=options)  # what a loop leaves behind
    files, threads = descriptors(), threading.active_count()
    started = time.monotonic()
    anyio.run(main, backend=backend, backend_options=options)
    took = time.monotonic() - started
    kept = still_there()
    left = threading.active_count() - threads
    ends = {session.run_name: record_of(session)["status"] for session in sessions}
    assert ends.pop("r7") == "failed"
    assert list(ends.values()) == ["completed"] * (count - 1)
    assert held[0] <= count + OF_THE_LOOP
    assert descriptors() <= files  # what tests before this one have left may be closed meanwhile
    assert kept == []
    assert left <= (4 if backend == "trio" else 0)  # trio keeps idle threads for ten seconds
    print(
        f"crowd: {count} sessions open at once on {backend} {options}, 1 failed, {count - 1} "
        f"completed, {held[0]} descriptors held, 0 left, {left} threads left, {took:.1f} s"
    )


RACE = """
import json, multiprocessing, os
from keisei import AppConfig, SessionInUseError, SessionManager

def race(barrier, heard):
    for number in range(25):
        session = SessionManager(AppConfig(), run_name=f"r{number}")
        barrier.wait()
        won = dict.fromkeys(("host", "pid", "text"))
        try:
            session.setup_directories()
        except SessionInUseError as exc:
            won = {"host": exc.host, "pid": exc.pid, "text": str(exc)}
        except Exception as exc:
            won["text"] = repr(exc)
        heard.put({"round": number, "racer": os.getpid(), **won})
        barrier.wait()  # a winner that had gone could be succeeded

if __name__ == "__main__":
    known = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in known else "spawn")
    barrier, heard = context.Barrier(8), context.SimpleQueue()
    racers = [context.Process(target=race, args=(barrier, heard)) for _ in range(8)]
    for racer in racers:
        racer.start()
    print(json.dumps([heard.get() for _ in range(25 * 8)]))
    for racer in racers:
        racer.join()
"""


@pytest.mark.requirement("DIR-8")
def test_one_of_many_processes_gets_the_name(tmp_path: Path) -> None:
    """Eight processes start a run at the same moment, 25 times: one gets it, seven are told so."""
    (tmp_path / "race.py").write_text(RACE)
    environ = {**os.environ, "KEISEI_LOG_DIR": str(tmp_path / "runs")}
    command = [sys.executable, str(tmp_path / "race.py")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout)
    for number in range(25):
        told = [said for said in heard if said["round"] == number]
        record = json.loads((tmp_path / "runs" / f"r{number}" / "session.json").read_text())
        winner = record["owner"]["pid"]
        assert record["attempt"] == 1
        assert [said["racer"] for said in told if said["text"] is None] == [winner], told
        assert len({said["racer"] for said in told}) == 8
        for loser in (said for said in told if said["racer"] != winner):
            assert (loser["host"], loser["pid"]) == (socket.gethostname(), winner)
            for word in (str(winner), socket.gethostname(), "Wait", "another run name", "number"):
                assert word in loser["text"]
    assert len(os.listdir(tmp_path / "runs")) == 25
    print("races: 25 rounds of 8 processes, 1 winner each")


SCARCE = """
import json, os, resource, sys
import anyio
from keisei import AppConfig, AsyncSessionManager, DirectorySetupError, KeiseiError

async def main():
    config = AppConfig.model_validate({"logging": {"log_dir": "runs"}})
    session = lambda name: AsyncSessionManager(config, run_name=name)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    used = lambda: max(int(n) for n in os.listdir("/dev/fd")) + 1
    async with session("open") as early:
        async with session("warm"):
            pass
        said = []
        for spare in range(20):
            top = used()
            fds = []
            while True:  # the free numbers below are taken, too
                fd = os.open("/dev/null", os.O_RDONLY)
                fds.append(fd)
                if fd > top:
                    break
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(fds) + 1 + spare, hard))
            new, error = session(f"new{spare}"), None
            try:
                await new.setup_directories()
            except Exception as exc:
                error = exc
            lines = []
            await early.log_session_info(lines.append)
            await early.log_session_start()
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            for fd in fds:
                os.close(fd)
            said.append([type(error).__name__, str(error), sorted(os.listdir("runs")), len(lines)])
            if error is None:
                await new.finalize_session()
                break
    record = json.load(open("runs/open/session.json"))["status"]
    print(json.dumps({"said": said, "end": early.status, "record": record}))

anyio.run(main, backend=sys.argv[1])
"""


def in_child(tmp_path: Path, code: str, *arguments: str) -> Any:
    """Run code in a process of its own, in a directory of its own; give what it prints as JSON."""
    place = tmp_path / "-".join(["child", *arguments])
    place.mkdir()
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.requirement("DIR-4")
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_descriptors_a_set_up_fails_whole(tmp_path: Path, backend: str) -> None:
    """With 0, 1, 2... to spare it is the typed error and no directory, and an open one goes on."""
    told = in_child(tmp_path, SCARCE, backend)
    *failed, last = told["said"]
    for kind, text, runs, lines in failed:
        assert kind == "DirectorySetupError", text
        assert "Too many open files" in text
        assert runs == ["open", "warm"]
        assert lines == 5
    assert last[0] == "NoneType"
    assert (told["end"], told["record"]) == ("completed", "completed")
    print(f"descriptors: set-up failed whole with 0 to {len(failed) - 1} to spare on {backend}")
    assert failed


NO_THREADS = """
import json, os, sys, threading
import anyio
from keisei import AppConfig, AsyncSessionManager, KeiseiError, SessionManager

def session(name, face=AsyncSessionManager):
    return face(AppConfig.model_validate({"logging": {"log_dir": "runs"}}), run_name=name)

def fail(self):
    raise RuntimeError("can't start new thread")

real = threading.Thread.start
said = {}

def note(name, error):
    said[name] = [isinstance(error, KeiseiError), type(error).__name__, str(error)]

async def main():
    threading.Thread.start = fail
    try:
        await session("early").setup_directories()
    except Exception as exc:
        note("early", exc)
    threading.Thread.start = real
    late = session("late")
    await late.setup_directories()
    await late.finalize_session()

if sys.argv[1] == "blocking":
    threading.Thread.start = fail
    try:
        session("early", SessionManager).setup_directories()
    except Exception as exc:
        note("early", exc)
    threading.Thread.start = real
    with session("late", SessionManager):
        pass
else:
    anyio.run(main, backend=sys.argv[1])
said["runs"] = sorted(os.listdir("runs"))
said["end"] = json.load(open("runs/late/session.json"))["status"]
print(json.dumps(said))
"""


@pytest.mark.requirement("DIR-4")
@pytest.mark.parametrize("way", ["asyncio", "trio", "blocking"])
def test_without_threads_a_set_up_fails_whole(tmp_path: Path, way: str) -> None:
    """It is a typed error, makes no directory later either, and the next session is well."""
    told = in_child(tmp_path, NO_THREADS, way)
    typed, kind, text = told["early"]
    assert typed, (kind, text)
    assert "thread" in text
    assert told["runs"] == ["late"]
    assert told["end"] == "completed"


@pytest.mark.requirement("LOG-1")
@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "async"])
async def test_a_logger_may_raise_at_any_call(make_config: MakeConfig, awaited: bool) -> None:
    """Whichever call raises, it is counted, and every other line comes."""
    async with AsyncSessionManager(make_config(env={"seed": 1})) as session:
        whole: list[str] = []
        await session.log_session_info(whole.append, {"type": "PPO", "name": "a"})
        for number in range(len(whole)):
            lines: list[str] = []
            calls = itertools.count()

            def log(
                line: str, lines: list[str] = lines, bad: int = number, calls: Any = calls
            ) -> None:
                if next(calls) == bad:
                    raise OSError(line)
                lines.append(line)

            async def log_later(line: str, log: Any = log) -> None:
                await anyio.lowlevel.checkpoint()
                log(line)

            logger = log_later if awaited else log
            await session.log_session_info(logger, {"type": "PPO", "name": "a"})
            assert lines == whole[:number] + whole[number + 1 :]
            assert session.get_session_summary()["logger_errors"] == number + 1
        assert len(whole) == 6
    assert session.status == "completed"


@pytest.mark.requirement("LOG-1")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
def test_what_is_no_error_passes_at_any_call(
    make_config: MakeConfig, error: type[BaseException]
) -> None:
    """Whichever call raises it, it is not held up or counted, and is the end that it means."""
    for number in range(5):
        session = AsyncSessionManager(make_config())
        calls = itertools.count()

        def log(line: str, bad: int = number, calls: Any = calls) -> None:
            if next(calls) == bad:
                raise error

        async def main(session: Any = session, log: Any = log) -> None:
            async with session:
                await session.log_session_info(log)

        with pytest.raises(error):
            anyio.run(main)
        assert next(calls) == number + 1
        assert session.get_session_summary()["logger_errors"] == 0
        ends = {KeyboardInterrupt: "cancelled", GeneratorExit: "cancelled", SystemExit: "completed"}
        assert record_of(session)["status"] == ends.get(error, "failed")


@pytest.mark.requirement("ID-2", "ID-4", "SUM-1")
def test_a_clock_that_jumps_moves_dates_alone(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and ids stay unique and sorted, and a duration is what the monotonic clock says."""
    chance = random.Random(11)
    real_ns = time.time_ns

    def jumping() -> int:
        return real_ns() + chance.randint(-(10**18), 10**17)  # 30 years back, 3 ahead

    class Jumping(datetime):
        """A calendar that jumps by years, too."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=chance.randint(-10_000, 1_000))

    monkeypatch.setattr(names, "_last_tick", names._last_tick)  # put back at the end
    monkeypatch.setattr(time, "time_ns", jumping)
    monkeypatch.setattr(time, "time", lambda: jumping() / 1e9)
    monkeypatch.setattr(owned, "datetime", Jumping)
    config = AppConfig()
    made = [generate_run_name(config) for _ in range(2_000)]
    ids = [AsyncSessionManager(config).session_id for _ in range(2_000)]
    assert made == sorted(set(made))
    assert ids == sorted(set(ids))
    for number in range(20):
        before = time.monotonic()
        session = SessionManager(make_config(), run_name=f"r{number}")
        session.setup_directories()
        seen = [session.get_session_summary()["duration_s"] for _ in range(20)]
        session.finalize_session()
        whole = time.monotonic() - before
        record = record_of(session)
        assert seen == sorted(seen)
        assert 0 <= seen[0] <= seen[-1] <= record["duration_s"] <= whole
        assert record["started_at"] != record["ended_at"]
    print("clock: 2000 names, 2000 ids and 20 durations in order over jumps of decades")
