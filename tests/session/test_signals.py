"""Signals: the first ends a session gracefully, a second one at once, and both tell the truth."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import AsyncSessionManager, SessionManager, SignalError
from keisei.testing import MemoryTracker
from tests.conftest import MakeConfig
from tests.support.cancellations import StepByStep
from tests.support.session_files import record_of
from tests.support.storms import repetitions
from tests.support.suspensions import Stepped, at_every_suspension

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR2 and no os.fork")

STATUS = {signal.SIGTERM: "cancelled", signal.SIGINT: "cancelled", signal.SIGUSR2: "preempted"}
LEAVES: dict[signal.Signals, type[BaseException]] = {
    signal.SIGTERM: SystemExit,
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGUSR2: SystemExit,
}


@pytest.fixture
def own_handlers() -> Iterator[list[int]]:
    """Handlers of the user's, which note what comes."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in STATUS}
    yield came
    assert {signal.getsignal(number) for number in STATUS} == {note}, "not put back"
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
async def test_a_signal_at_every_suspension(
    make_config: MakeConfig, own_handlers: list[int], number: signal.Signals
) -> None:
    """Wherever it comes, the run has a true end, the body is told, and no signal is lost."""
    root = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    config = make_config(signals={"handle": True}, logging={"log_dir": root})

    async def life(session: AsyncSessionManager[Any]) -> None:
        async with session:
            await session.setup_remote_logging(MemoryTracker())
            for _ in range(3):
                await anyio.sleep(0)

    async def run(kind: type[AsyncSessionManager[Any]], k: int) -> bool:
        name = f"{kind.__name__}-{k}"
        session = kind(config, run_name=name)
        seen: list[str] = []

        def hit(trap: object) -> None:
            seen.append(session.status)
            signal.raise_signal(number)

        stepped = Stepped(life(session), k, hit)
        raised: BaseException | None = None
        own_handlers.clear()
        try:
            await stepped
        except BaseException as exc:
            raised = exc
        if not stepped.reached:
            assert raised is None
            return False
        (before,) = seen
        if before in ("created", "running"):
            assert session.status == STATUS[number], k
        else:
            assert session.status == before, k
        assert type(raised) is LEAVES[number], (k, raised)
        if isinstance(raised, SystemExit):
            assert raised.code == 128 + number
        if Path(root, name, "session.json").exists():
            assert record_of(session)["status"] == session.status
        assert own_handlers == [number]  # called after
        return True

    found = {
        kind: await at_every_suspension(partial(run, kind))
        for kind in (AsyncSessionManager, StepByStep)
    }
    print(f"signals at every suspension: {sum(found.values())}")
    assert sum(found.values()) >= 20
    assert min(found.values()) >= 7


@pytest.mark.parametrize("rounds", [30, pytest.param(repetitions(300), marks=pytest.mark.storm)])
def test_signals_at_random_instants(tmp_path: Path, rounds: int) -> None:
    """Many of each, on every loop and on none: each session has the one right end."""
    seed = random.randrange(10**6)
    root = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path)
    command = [sys.executable, "-m", "tests.support.signal_rounds", root, str(rounds), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"signals at random instants (seed {seed}): {found}")
    assert found["wrong"] == []
    assert found["done"] == dict.fromkeys(["SIGTERM", "SIGINT", "SIGUSR2"], rounds)


STUBBORN = """
import sys, anyio
from keisei import AsyncSessionManager, SessionManager, load_config

config = load_config(overrides={"logging": {"log_dir": "runs", "run_name": "stubborn"}})

async def main():
    async with AsyncSessionManager(config) as session:
        session.handle_signals(grace=float(sys.argv[1]))
        with anyio.CancelScope(shield=True):
            print("ready", flush=True)
            await anyio.sleep_forever()

anyio.run(main, backend=sys.argv[2])
"""


def stubborn(tmp_path: Path, grace: float, backend: str) -> subprocess.Popen[str]:
    """Start a process whose session's body does not give in."""
    command = [sys.executable, "-c", STUBBORN, str(grace), backend]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, backend: str) -> None:
    """The end that the first one asked for is on the disk all the same."""
    with stubborn(tmp_path, 60.0, backend) as process:
        process.send_signal(signal.SIGUSR2)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGUSR2
        assert time.monotonic() - begun < 30.0  # half of the grace time
    run = tmp_path / "runs" / "stubborn"
    assert json.loads((run / "session.json").read_bytes())["status"] == "preempted"
    assert ", preempted after " in (run / "training.log").read_text().splitlines()[-1]


def test_a_preemption_signal_that_is_passed_on_is_one(tmp_path: Path) -> None:
    """A scheduler sends it to all, and a launcher passes it on at once: that cuts off no save.

    A later one ends the process.
    """
    with stubborn(tmp_path, 60.0, "asyncio") as process:
        for _ in range(3):
            process.send_signal(signal.SIGUSR2)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(60) == 128 + signal.SIGUSR2


def test_the_grace_time_is_the_longest_that_a_graceful_end_takes(tmp_path: Path) -> None:
    """A body that does not give in is ended with the process."""
    with stubborn(tmp_path, 0.3, "asyncio") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    record = json.loads((tmp_path / "runs" / "stubborn" / "session.json").read_bytes())
    assert record["status"] == "cancelled"


@pytest.mark.parametrize("before", [True, False])
async def test_it_may_be_asked_for_before_the_block_or_in_it(
    make_config: MakeConfig, own_handlers: list[int], before: bool
) -> None:
    """The preemption signal's name may be given; a failure in the clean-up is a failure."""
    session = AsyncSessionManager(make_config())
    ask = partial(session.handle_signals, preemption="SIGTERM", grace=5.0)
    if before:
        ask()
    with pytest.raises(SystemExit):
        async with session:
            if not before:
                ask()
                ask()
            signal.raise_signal(signal.SIGTERM)
            await anyio.sleep_forever()
    assert session.status == record_of(session)["status"] == "preempted"

    failing = AsyncSessionManager(make_config())
    failing.handle_signals()
    with pytest.raises(ValueError, match="clean-up"):
        async with failing:
            try:
                signal.raise_signal(signal.SIGTERM)
                await anyio.sleep_forever()
            finally:
                raise ValueError("in the clean-up")
    assert failing.status == "failed"


async def test_a_signal_before_the_block_ends_it_at_its_entry(
    make_config: MakeConfig, own_handlers: list[int]
) -> None:
    """What came before there was a body to cancel is not lost."""
    session = AsyncSessionManager(make_config())
    entered = False

    async def life() -> None:
        nonlocal entered
        session.handle_signals()
        signal.raise_signal(signal.SIGUSR2)
        async with session:
            entered = True

    with pytest.raises(SystemExit):
        await life()
    assert not entered
    assert session.status == "preempted"


def test_the_blocking_face_raises_in_the_body(
    make_config: MakeConfig, own_handlers: list[int]
) -> None:
    """What leaves the block says which signal it was, also where the body catches it."""
    session = SessionManager(make_config(signals={"handle": True}))
    with pytest.raises(SystemExit) as left, session:
        signal.raise_signal(signal.SIGUSR2)
    assert left.value.code == 128 + signal.SIGUSR2
    assert session.status == record_of(session)["status"] == "preempted"
    stubborn = SessionManager(make_config())
    with pytest.raises(KeyboardInterrupt), stubborn:
        stubborn.handle_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stubborn.status == "cancelled"


def test_a_session_taken_step_by_step_is_told_too(
    make_config: MakeConfig, own_handlers: list[int]
) -> None:
    """On both faces: the task is cancelled, or the error is raised, and the end is the signal's."""
    session = AsyncSessionManager(make_config())

    async def main() -> None:
        session.handle_signals()
        try:
            await session.setup_directories()
            signal.raise_signal(signal.SIGUSR2)
            await anyio.sleep_forever()
        finally:
            await session.finalize_session()

    with pytest.raises((asyncio.CancelledError, KeyboardInterrupt)):
        anyio.run(main)
    assert session.status == record_of(session)["status"] == "preempted"

    blocking = SessionManager(make_config())
    blocking.handle_signals()
    blocking.setup_directories()
    with pytest.raises(SystemExit):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            assert blocking.finalize_session() == "cancelled"


def test_several_signals_may_tell_a_preemption(
    make_config: MakeConfig, own_handlers: list[int]
) -> None:
    """Each of those that are named, in the config or in the call."""
    config = make_config(signals={"handle": True, "preemption": ["SIGUSR2", "SIGTERM"]})
    for name, number in (("a", signal.SIGTERM), ("b", signal.SIGUSR2)):
        session = SessionManager(config, run_name=name)
        with pytest.raises(SystemExit) as left, session:
            signal.raise_signal(number)
        assert left.value.code == 128 + number
        assert record_of(session)["status"] == "preempted"
        assert own_handlers.pop() == number
    session = SessionManager(make_config(), run_name="c")
    with pytest.raises(KeyboardInterrupt), session:
        session.handle_signals(preemption=("SIGINT",))
        signal.raise_signal(signal.SIGINT)
    assert record_of(session)["status"] == "preempted"


def test_keiseis_handlers_give_way_where_the_config_says_so(
    make_config: MakeConfig, own_handlers: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """What others handle is left to them, with a warning; what nobody handles is not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = make_config(signals={"handle": True, "others": "instead"})
    session = SessionManager(config, run_name="r")
    with pytest.raises(KeyboardInterrupt), session:
        signal.raise_signal(signal.SIGUSR2)
        assert own_handlers == [signal.SIGUSR2]
        assert session.preempting is None
        signal.raise_signal(signal.SIGINT)
    assert record_of(session)["status"] == "cancelled"
    assert "SIGUSR2 is left to the handler" in caplog.text
    assert "SIGINT" not in caplog.text
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))


def test_a_handler_that_is_installed_over_keiseis_may_call_it(make_config: MakeConfig) -> None:
    """It stays when the session has ended, and what it calls then is what stood there before."""
    came: list[str] = []
    before = signal.signal(signal.SIGUSR2, lambda *_: came.append("first"))
    try:
        session = SessionManager(make_config(signals={"handle": True}), run_name="r")
        with pytest.raises(SystemExit), session:
            ours: Any = signal.getsignal(signal.SIGUSR2)

            def over(number: int, frame: Any) -> None:
                came.append("over")
                ours(number, frame)

            signal.signal(signal.SIGUSR2, over)
            signal.raise_signal(signal.SIGUSR2)
        assert record_of(session)["status"] == "preempted"
        assert came == ["over", "first"]
        assert signal.getsignal(signal.SIGUSR2) is over
        signal.raise_signal(signal.SIGUSR2)
        assert came == ["over", "first"] * 2
        following = SessionManager(make_config(signals={"handle": True}), run_name="s")
        with pytest.raises(SystemExit), following:
            signal.raise_signal(signal.SIGUSR2)
        assert came == ["over", "first"] * 2 + ["over"]
    finally:
        signal.signal(signal.SIGUSR2, before)


async def test_two_sessions_share_the_signals(
    make_config: MakeConfig, own_handlers: list[int]
) -> None:
    """Each is told, and the user's handlers come back when the last has ended."""
    outer = AsyncSessionManager(make_config(signals={"handle": True}))
    inner = AsyncSessionManager(make_config(signals={"handle": True, "preemption": None}))
    with pytest.raises(SystemExit):
        async with outer, inner:
            signal.raise_signal(signal.SIGTERM)
            await anyio.sleep_forever()
    assert (outer.status, inner.status) == ("cancelled", "cancelled")


def test_what_cannot_be_handled_is_a_typed_error(make_config: MakeConfig) -> None:
    """Off the main thread, a signal that no process may handle, and one that there is not."""
    session = SessionManager(make_config())
    before = signal.getsignal(signal.SIGTERM)
    for wrong in ("SIGKILL", "SIGNONE"):
        with pytest.raises(SignalError, match=wrong):
            session.handle_signals(preemption=wrong)
    with pytest.raises(SignalError, match="-1"):
        session.handle_signals(grace=-1)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            session.handle_signals()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in errors] == [SignalError]
    assert "main thread" in str(errors[0])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
async def test_the_signal_is_the_reason(
    make_config: MakeConfig, own_handlers: list[int], number: signal.Signals
) -> None:
    """Its name is in the session file, and what left the block."""
    session = AsyncSessionManager(make_config(signals={"handle": True}), run_name="r")
    with pytest.raises(LEAVES[number]):
        async with session:
            signal.raise_signal(number)
            await anyio.sleep_forever()
    failure = record_of(session)["failure"]
    assert (failure["type"], failure["message"]) == (LEAVES[number].__name__, number.name)


@pytest.mark.parametrize("when", ["never", "in the test", "in the end"])
def test_a_fixture_may_leave_in_another_task(
    make_config: MakeConfig, own_handlers: list[int], when: str
) -> None:
    """As pytest's plug-ins do it: a signal then reaches the program by what it raises."""
    config = make_config(signals={"handle": True})
    session = AsyncSessionManager(config, run_name="r")

    async def at(moment: str) -> None:
        if when == moment:
            signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0)

    async def leave() -> None:
        session._interruption.end_body()
        await at("in the end")
        await session.__aexit__(None, None, None)

    codes: list[object] = []
    with asyncio.Runner() as runner:
        runner.run(session.__aenter__())
        for step in (at("in the test"), leave()):
            try:
                runner.run(step)
                codes.append(None)
            except SystemExit as exc:
                codes.append(exc.code)
    ended = 128 + signal.SIGTERM
    assert codes == {"never": [None] * 2, "in the test": [ended, None]}.get(when, [None, ended])
    assert session.status == ("completed" if when == "never" else "cancelled")
