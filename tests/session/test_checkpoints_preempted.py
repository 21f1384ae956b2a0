"""A preempted run goes on to its next safe point, is saved there, and ends; in time, always."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from keisei import AppConfig, AsyncSessionManager, SessionManager
from tests.conftest import MakeConfig
from tests.support.file_faults import fast_place
from tests.support.session_files import record_of
from tests.support.slow_saves import SlowWriter
from tests.support.storms import repetitions

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR2"),
    pytest.mark.requirement("CKPT-5"),
]

LEAVES = 128 + signal.SIGUSR2
GRACE = 20.0


@pytest.fixture
def config(make_config: MakeConfig, tmp_path: Path) -> Iterator[AppConfig]:
    """A config that handles signals, whose runs live where an fsync costs nothing."""
    with fast_place(tmp_path) as place:
        yield make_config(logging={"log_dir": str(place)}, signals={"handle": True, "grace": GRACE})


def preempt() -> None:
    """Send the preemption signal to this process."""
    signal.raise_signal(signal.SIGUSR2)


def manifests(config: AppConfig) -> dict[int, dict[str, Any]]:
    """Return what the checkpoints of the run say, by step."""
    models = Path(config.logging.log_dir or "", "r", "models")
    assert not [path for path in models.iterdir() if path.name.startswith(".")]
    found = [json.loads(path.read_bytes()) for path in models.glob("*.ckpt/manifest.json")]
    return {each["manifest"]["step"]: each["manifest"] for each in found}


async def test_the_body_goes_on_to_its_next_safe_point(config: AppConfig) -> None:
    """Nothing of it is cut off before, it is cancelled there, and what it knew is saved."""
    state: dict[str, int] = {}
    seen: list[int] = []
    session = AsyncSessionManager(config, run_name="r")
    with pytest.raises(SystemExit) as left:
        async with session:
            session.setup_auto_checkpointing(100, state=state)
            for step in range(1, 50):
                seen.append(step)
                if step == 7:
                    preempt()
                    await anyio.sleep(0.01)
                session.log_metrics({"loss": 1.0}, step)
                state["step"] = step
                await session.checkpoint_if_due(step)
    assert left.value.code == LEAVES
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert session.status == record_of(session)["status"] == "preempted"
    known = manifests(config)
    assert list(known) == [7]
    assert known[7]["position"] == {"attempt": 1, "seq": 6}
    async with AsyncSessionManager(config, run_name="r") as following:
        found = await following.restore_checkpoint()
        assert found is not None
        assert found.state == {"step": 7}


def test_the_blocking_face_goes_on_to_its_next_safe_point(config: AppConfig) -> None:
    """What the signal raises is raised there, and not before."""
    seen: list[int] = []
    session = SessionManager(config, run_name="r")
    with pytest.raises(SystemExit) as left, session:
        session.setup_auto_checkpointing(100, state=lambda: {"step": seen[-1]})
        for step in range(1, 50):
            seen.append(step)
            if step == 7:
                preempt()
                time.sleep(0.01)
            session.checkpoint_if_due(step)
    assert left.value.code == LEAVES
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert session.status == record_of(session)["status"] == "preempted"
    assert list(manifests(config)) == [7]


async def test_a_step_that_is_saved_already_is_not_saved_again(config: AppConfig) -> None:
    """The body ends at the safe point all the same."""
    session = AsyncSessionManager(config, run_name="r")
    with pytest.raises(SystemExit):
        async with session:
            session.setup_auto_checkpointing(5, state={}, keep_last=None)
            await session.checkpoint_if_due(5)
            preempt()
            await session.checkpoint_if_due(5)
            raise AssertionError
    assert session.status == "preempted"
    assert list(manifests(config)) == [5]


async def test_a_body_without_a_safe_point_is_cut_off_and_saved(make_config: MakeConfig) -> None:
    """While there is time for a save: under the step of its last safe point, told by the step."""
    config = make_config(signals={"handle": True, "grace": 6.0})
    state = {"a": 0}
    session = AsyncSessionManager(config, run_name="r")
    begun = time.monotonic()
    with pytest.raises(SystemExit):
        async with session:
            session.setup_auto_checkpointing(100, state=state)
            await session.checkpoint_if_due(3)
            state["a"] = 1
            session.log_metrics({"loss": 1.0}, 4)
            preempt()
            await anyio.sleep_forever()
    assert 1.0 < time.monotonic() - begun < 6.0
    assert session.status == record_of(session)["status"] == "preempted"
    known = manifests(config)
    assert list(known) == [3]
    assert known[3]["position"] is None


def test_a_blocking_body_without_a_safe_point_is_cut_off_and_saved(
    make_config: MakeConfig,
) -> None:
    """Wherever it waits: the main thread is interrupted there."""
    config = make_config(signals={"handle": True, "grace": 6.0})
    session = SessionManager(config, run_name="r")
    begun = time.monotonic()
    with pytest.raises(SystemExit) as left, session:
        session.setup_auto_checkpointing(100, state={})
        session.checkpoint_if_due(3)
        preempt()
        threading.Event().wait(60)
    assert left.value.code == LEAVES
    assert 1.0 < time.monotonic() - begun < 6.0
    assert session.status == record_of(session)["status"] == "preempted"
    assert list(manifests(config)) == [3]


@pytest.mark.parametrize("face", ["async", "blocking"])
def test_a_slow_save_does_not_outlast_the_grace_time(make_config: MakeConfig, face: str) -> None:
    """The body leaves it, the end waits for it as long as there is time, and nothing is half."""
    config = make_config(signals={"handle": True, "grace": 8.0})
    slow = SlowWriter()

    async def life() -> None:
        async with AsyncSessionManager(config, run_name="r") as session:
            session.setup_auto_checkpointing(100, state=slow)
            preempt()
            await session.checkpoint_if_due(3)

    begun = time.monotonic()
    with pytest.raises(SystemExit):
        if face == "async":
            anyio.run(life)
        else:
            with SessionManager(config, run_name="r") as session:
                session.setup_auto_checkpointing(100, state=slow)
                preempt()
                session.checkpoint_if_due(3)
    took = time.monotonic() - begun
    slow.let()
    assert took < 8.0
    assert slow.calls == 1
    record = json.loads(Path(config.logging.log_dir or "", "r", "session.json").read_bytes())
    assert record["status"] == "preempted"
    models = Path(config.logging.log_dir or "", "r", "models")
    give_up = time.monotonic() + 5
    while any(models.iterdir()):  # what the thread has staged goes, and nothing appears
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.parametrize("face", ["async", "blocking"])
@pytest.mark.parametrize(
    ("number", "policy"),
    [
        (signal.SIGTERM, {}),
        (signal.SIGUSR2, {"on_preemption": False}),
        (signal.SIGUSR2, None),
    ],
    ids=["SIGTERM", "not on preemption", "no policy"],
)
def test_other_signals_end_the_body_at_once(
    config: AppConfig, number: signal.Signals, policy: dict[str, Any] | None, face: str
) -> None:
    """As ever, where no save was asked for."""

    async def life() -> None:
        async with AsyncSessionManager(config, run_name="r") as session:
            if policy is not None:
                session.setup_auto_checkpointing(1, state={}, at_end=False, **policy)
            signal.raise_signal(number)
            await anyio.sleep_forever()

    begun = time.monotonic()
    with pytest.raises(SystemExit) as left:
        if face == "async":
            anyio.run(life)
        else:
            with SessionManager(config, run_name="r") as session:
                if policy is not None:
                    session.setup_auto_checkpointing(1, state={}, at_end=False, **policy)
                signal.raise_signal(number)
                time.sleep(60)
    assert left.value.code == 128 + number
    assert time.monotonic() - begun < GRACE / 2
    assert manifests(config) == {}


async def test_a_signal_in_the_entry_ends_the_entry(config: AppConfig) -> None:
    """There is nothing to save yet, although a policy is set."""
    session = AsyncSessionManager(config, run_name="r")
    session.setup_auto_checkpointing(1, state={})
    session.handle_signals()
    preempt()
    with pytest.raises(SystemExit):
        async with session:
            raise AssertionError
    assert session.status == "preempted"


async def test_a_body_that_ends_by_itself_is_saved_too(config: AppConfig) -> None:
    """Without another safe point after the signal: under the last one's step."""
    session = AsyncSessionManager(config, run_name="r")
    with pytest.raises(SystemExit):
        async with session:
            session.setup_auto_checkpointing(100, state={})
            await session.checkpoint_if_due(8)
            preempt()
    assert session.status == "preempted"
    assert list(manifests(config)) == [8]


async def test_a_save_that_fails_ends_the_body_all_the_same(
    config: AppConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, for there is nobody left to be told; the run is still preempted."""
    session = AsyncSessionManager(config, run_name="r")
    with pytest.raises(SystemExit):
        async with session:
            session.setup_auto_checkpointing(100, state={"a": 1}, keep_last=None)
            models = Path(session.model_dir)
            models.rmdir()
            models.write_text("in the way")
            preempt()
            await session.checkpoint_if_due(3)
    assert session.status == record_of(session)["status"] == "preempted"
    assert "step 3 is not saved" in caplog.text
    assert session.get_session_summary()["checkpoints"]["failed"] > 0


SECOND = """
import sys, anyio
from keisei import AsyncSessionManager, SessionManager, load_config

config = load_config(overrides={"logging": {"log_dir": "runs"}, "signals": {"handle": True}})

async def main():
    async with AsyncSessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(state={})
        await session.checkpoint_if_due(1)
        print("ready", flush=True)
        await anyio.sleep_forever()

def blocking():
    import time
    with SessionManager(config, run_name="r") as session:
        session.setup_auto_checkpointing(state={})
        session.checkpoint_if_due(1)
        print("ready", flush=True)
        time.sleep(60)

blocking() if sys.argv[1] == "blocking" else anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("face", ["asyncio", "trio", "blocking"])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, face: str) -> None:
    """Also while the body goes on to a safe point; the end is on the disk."""
    command = [sys.executable, "-c", SECOND, face]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR2)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        begun = time.monotonic()
        process.send_signal(signal.SIGUSR2)
        assert process.wait(10) == LEAVES
        assert time.monotonic() - begun < 5.0
    record = json.loads((tmp_path / "runs" / "r" / "session.json").read_bytes())
    assert record["status"] == "preempted"


def storm(tmp_path: Path, rounds: int) -> dict[str, Any]:
    """Preempt trainings at random instants, and return what was found."""
    seed = random.randrange(10**6)
    with fast_place(tmp_path) as place:
        command = [sys.executable, "-m", "tests.support.preemption_rounds"]
        command += [str(place), str(rounds), str(seed)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=600
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"preempted at random instants (seed {seed}): {found}")
    return found


def test_preempted_at_random_instants(tmp_path: Path) -> None:
    """On each loop and on none: the newest checkpoint is whole, and the last safe point's."""
    found = storm(tmp_path, 14)
    assert found["wrong"] == []
    assert sum(found["ended"].values()) == 14


@pytest.mark.storm
def test_preempted_at_many_random_instants(tmp_path: Path) -> None:
    """The same, 600 times."""
    rounds = repetitions(600)
    found = storm(tmp_path, rounds)
    assert found["wrong"] == []
    assert sum(found["ended"].values()) == rounds
