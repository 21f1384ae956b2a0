"""What a killed session leaves: whole files, all that was acknowledged, and a way to go on."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from keisei import AsyncSessionManager
from keisei.run.session_file import SessionRecord
from tests.conftest import MakeConfig
from tests.support.crashes import LINES, Crashes, Death, Told, config_for, crashes
from tests.support.file_faults import fast_place
from tests.support.storms import repetitions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")

KILLS = 200
THINGS = LINES + 4  # that a whole life tells


@pytest.fixture
def killer() -> Iterator[Crashes]:
    """A process that forks children and sees them die."""
    with crashes() as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory where an fsync costs nothing."""
    with fast_place(tmp_path) as fast:
        yield fast


def record_in(run: Path) -> SessionRecord | None:
    """Read the run's record; ``None`` where there is none."""
    path = run / "session.json"
    if not path.exists():
        return None
    record = SessionRecord.parsed(path.read_bytes())
    assert record is not None, path.read_bytes()
    return record


def half_files(run: Path) -> list[str]:
    """Name the JSON files that are not whole."""
    half = []
    for path in run.glob("[!.]*.json*"):
        data = path.read_bytes()
        try:
            json.loads(data)
        except ValueError:
            half.append(path.name)
        else:
            if not data.endswith(b"\n") or path.name.endswith(".corrupt"):
                half.append(path.name)
    return half


def ends_in(lines: list[str]) -> dict[int, str]:
    """Return the end of each attempt, as the log's lines tell it."""
    ends, attempt = {}, 0
    for line in lines:
        if started := re.search(r"session started: run r, id \w+, attempt (\d+)$", line):
            attempt = int(started[1])
        elif ended := re.search(r"session ended: run r, (\w+) after [0-9.]+ s$", line):
            ends[attempt] = ended[1]
    return ends


def lost(run: Path, told: list[Told]) -> list[Told]:
    """Return what a session was told that it had done, and that is not on the disk."""
    record = record_in(run)
    log = run / "training.log"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # a torn one is no line
    ends = ends_in(lines)
    hashes = {hashlib.sha256(p.read_bytes()).hexdigest() for p in run.glob("*config*.json")}
    missing = []
    for what in told:
        match what:
            case ["directories", attempt, session_id]:
                kept = record is not None and record.session_id == session_id
                kept = kept and record is not None and record.attempt >= attempt
                kept = kept and (run / "models").is_dir() and (run / "evaluation.log").exists()
            case ["config", _, digest]:
                kept = digest in hashes
            case ["start", attempt, session_id]:
                kept = any(line.endswith(f"id {session_id}, attempt {attempt}") for line in lines)
            case ["line", _, line]:
                kept = line in lines
            case ["end", attempt, status]:
                kept = ends.get(attempt) == status and record is not None
                if record is not None and record.attempt == attempt:
                    kept = kept and record.status == status
            case _:
                continue
        if not kept:
            missing.append(what)
    return missing


def start_again(run: Path, timesteps: int, backend: str = "asyncio") -> list[Told]:
    """Start on what is left, without help; check that it is the next attempt, and end it."""
    before = record_in(run)
    told: list[Told] = []

    async def main() -> None:
        config = config_for(str(run.parent), timesteps)
        async with AsyncSessionManager(config, run_name="r") as session:
            attempt = session.get_session_summary()["attempt"]
            if before is not None:
                assert session.session_id == before.session_id
                assert attempt == before.attempt + 1
            else:
                assert attempt == 1
            told.append(["directories", attempt, session.session_id])
            text = Path(run, "effective_config.json").read_bytes()
            assert json.loads(text)["training"]["total_timesteps"] == timesteps
            told.append(["config", attempt, hashlib.sha256(text).hexdigest()])
            told.append(["start", attempt, session.session_id])
        told.append(["end", attempt, "completed"])

    anyio.run(main, backend=backend)
    after = record_in(run)
    assert after is not None
    assert after.status == "completed"
    assert half_files(run) == []
    return told


def temporary(run: Path) -> list[str]:
    """Name the temporary files in a run's directory."""
    return [path.name for path in run.rglob(".*.tmp")]


BACKENDS = ["asyncio", "asyncio", "trio"]


@pytest.mark.requirement("DIR-7", "DIR-8", "CFG-3", "LOG-2")
def test_killed_before_each_file_operation(killer: Crashes, place: Path) -> None:
    """Whatever call is the last, files are whole, what was told is there, and the next start is
    the next attempt: of a new run, and of one whose config has changed."""
    kills, missing, left = 0, 0, []
    finished = place / "finished"
    killer.die(Death(str(finished), 1))
    start_again(finished / "r", 2)
    for resumed in (False, True):
        dead_before = 0
        while True:
            dead_before += 1
            root = place / f"{resumed}-{dead_before}"
            run = root / "r"
            if resumed:
                shutil.copytree(finished, root)
            backend = BACKENDS[dead_before % len(BACKENDS)]
            told, killed = killer.die(Death(str(root), 3, before=dead_before, backend=backend))
            missing += len(lost(run, told))
            assert half_files(run) == [], (resumed, dead_before)
            if not killed:
                assert told[-1] == ["calls", dead_before - 1]
                break
            kills += 1
            told += start_again(run, 4, backend)
            missing += len(lost(run, told))
            left += [(resumed, dead_before, name) for name in temporary(run)]
            shutil.rmtree(root)
    print(f"kills before each file operation: {kills}; acknowledged records lost: {missing}")
    assert kills > 100
    assert missing == 0
    assert left == []


def random_kills(killer: Crashes, place: Path, count: int, seed: int) -> tuple[int, int, int]:
    """Kill at random instants; give how many records were told, how many are lost, and how many
    of the kills came inside a session."""
    rng = random.Random(seed)
    records, missing, inside, left = 0, 0, 0, []
    for first in range(0, count, 10):
        run = place / str(first) / "r"
        told: list[Told] = []
        for number in range(first, min(first + 10, count)):
            backend = rng.choice(BACKENDS)
            death = Death(
                str(run.parent),
                1000 * number,
                after=rng.randrange(3 * THINGS),
                later=rng.uniform(0, 0.005),
                backend=backend,
            )
            heard, killed = killer.die(death)
            assert killed, heard
            told += heard
            record = record_in(run)
            inside += record is not None and record.status == "running"
            assert half_files(run) == []
            missing += len(lost(run, told))
            told += start_again(run, 1000 * number + 999, backend)
            left += temporary(run)
        missing += len(lost(run, told))
        records += len(told)
        shutil.rmtree(run.parent)
    assert left == []
    return records, missing, inside


@pytest.mark.requirement("DIR-7", "DIR-8", "CFG-3", "LOG-2")
def test_killed_at_random_instants(killer: Crashes, place: Path) -> None:
    """Two hundred kills in a loop of lives lose nothing that was told, and need no help after."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed: {seed}")
    records, missing, inside = random_kills(killer, place, KILLS, seed)
    print(
        f"random kills: {KILLS} ({inside} inside a session, {records} records); "
        f"acknowledged records lost: {missing}"
    )
    assert missing == 0
    assert inside > KILLS // 4
    assert records > 10 * KILLS


@pytest.mark.storm
def test_a_storm_of_kills(killer: Crashes, place: Path) -> None:
    """Five thousand kills, or the share of them that is asked for, lose nothing either."""
    kills = repetitions(5000)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed: {seed}")
    records, missing, _ = random_kills(killer, place, kills, seed)
    print(f"random kills: {kills} ({records} records); acknowledged records lost: {missing}")
    assert missing == 0


@pytest.mark.requirement("LOG-2")
async def test_a_last_line_torn_at_every_byte_is_closed(
    make_config: MakeConfig, place: Path
) -> None:
    """The next start's line is a line of its own, and nothing before the torn one is lost."""
    config = make_config(logging={"log_dir": str(place)})
    async with AsyncSessionManager(config, run_name="r") as session:
        pass
    run = Path(session.run_artifact_dir)
    whole = (run / "training.log").read_bytes()
    before = whole.splitlines(keepends=True)[0]
    last = whole[len(before) :]
    shutil.copytree(run, place / "kept")
    for length in range(len(last)):
        shutil.rmtree(run)
        shutil.copytree(place / "kept", run)
        os.truncate(run / "training.log", len(before) + length)
        async with AsyncSessionManager(config, run_name="r") as session:
            pass
        log = (run / "training.log").read_bytes()
        closed = before + last[:length] + (b"\n" if length else b"")
        assert log.startswith(closed)
        start, end, nothing = log[len(closed) :].split(b"\n")
        assert re.fullmatch(rb"\[\S+\] session started: run r, id \w+, attempt 2", start)
        assert re.fullmatch(rb"\[\S+\] session ended: run r, completed after .* s", end)
        assert nothing == b""
