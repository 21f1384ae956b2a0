"""Programs that are stopped, lose their run by its lease, and are woken; killed programs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keisei import SessionManager
from keisei.journal.reader import read_run
from keisei.run import find
from keisei.store import clock, reading, schema
from keisei.store.database import Database
from tests.conftest import MakeConfig
from tests.support.storms import repetitions

PROGRAM = """
import json, sys
from keisei import SessionManager, load_config
config = load_config(overrides=json.loads(sys.argv[1]))
with SessionManager(config, run_name="r") as session:
    for step in range(1, 100_000_000):
        session.log_metrics({"loss": 1.0}, step=step)
        if step % 10 == 0:
            session.flush()
            session.log_evaluation({"score": step})
        if step % 20 == 0:
            session.save_checkpoint({"step": step}, step)
            session.save_effective_config()
            session.save_final_model({"step": step})
        if step == 40:
            print("trains", flush=True)
"""
LIMIT = 60.0  # seconds for a program on a busy machine
TTL = 1.0
ROWS = 8  # rounds, of which one looks at the run's row
URLS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")


def program(overrides: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a program that trains, and wait until it does."""
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(overrides)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    if started.stdout.readline() != "trains\n":
        started.kill()
        raise AssertionError(started.communicate())
    return started


def content(run: Path) -> dict[str, bytes]:
    """Return what keisei's own files hold: those of trackers are their host processes' to write."""
    found = {}
    for path in run.rglob("*"):
        name = str(path.relative_to(run))
        if path.is_symlink():
            found[name] = os.readlink(path).encode()
        elif path.is_file() and not name.startswith(("tracker.", ".tracker.")):
            found[name] = path.read_bytes()
    return found


def over(database: Database) -> bool:
    """Return whether the time of the only lease is over."""
    with database.reading() as connection:
        expires = schema.leases.c.expires < clock.now()
        return bool(connection.execute(sa.select(expires)).scalar())


def wait_for_row(database: Database, attempt: int) -> tuple[str, int | None]:
    """Wait until the run's row is an attempt's; return its status and its owner's process."""
    deadline = time.monotonic() + LIMIT
    while True:
        with database.reading() as connection:
            for row in reading.find(connection):
                if row.attempt == attempt:
                    return row.status, row.pid
        assert time.monotonic() < deadline
        time.sleep(0.02)


def zombie_round(
    config: Any, overrides: dict[str, Any], url: str, pause: float, *, with_row: bool
) -> None:
    """Stop a program, take its run over when its lease is over, wake it, and look.

    The run's row is looked at where asked for: the next owner's comes some seconds after it.
    """
    with program(overrides) as owner, Database(url) as database:
        try:
            time.sleep(pause)  # the instant of the stop is the point
            owner.send_signal(signal.SIGSTOP)
            os.waitpid(owner.pid, os.WUNTRACED)
            while not over(database):
                time.sleep(0.05)
            session = SessionManager(config, run_name="r")
            session.setup_directories()
            session.save_effective_config()
            session.log_metrics({"loss": 2.0}, step=1_000_000_000)
            session.save_checkpoint({"step": 0}, 1_000_000_000)
            session.flush()
            run = Path(session.run_artifact_dir)
            before = content(run)
            rows = sum(1 for _ in read_run(run).rows(include_superseded=True))
            if with_row:
                wait_for_row(database, attempt=2)
            owner.send_signal(signal.SIGCONT)
            _, complaint = owner.communicate(timeout=LIMIT)
        finally:
            owner.kill()
        assert owner.returncode == 1  # of the error of whichever call was refused first
        assert "has taken the run over, as attempt 2" in complaint
        after = content(run)
        changed = {name for name in before | after if before.get(name) != after.get(name)}
        assert not changed, changed
        assert sum(1 for _ in read_run(run).rows(include_superseded=True)) == rows
        if with_row:
            assert wait_for_row(database, attempt=2) == ("running", os.getpid())
        assert session.finalize_session() == "completed"
        with database.reading() as connection:
            found = connection.execute(sa.select(schema.leases)).one()
        assert (json.loads(found.owner)["pid"], found.epoch) == (os.getpid(), 2)


@pytest.mark.requirement("REG-3")
@pytest.mark.parametrize("rounds", [2, pytest.param(200, marks=pytest.mark.storm)])
@pytest.mark.parametrize("kind", URLS)
def test_a_stopped_owner_writes_nothing_after_a_takeover(
    make_config: MakeConfig,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
    rounds: int,
) -> None:
    """Neither session file, config, logs, journal, checkpoints nor the database."""
    chance = random.Random(24)
    for number in range(repetitions(rounds) if rounds > 2 else rounds):
        url = f"sqlite:///{tmp_path}/{number}.db"
        if kind == "postgres":
            url = request.getfixturevalue("new_postgres")()
        overrides: dict[str, Any] = {
            "registry": {"url": url, "lease": TTL},
            "logging": {"log_dir": str(tmp_path / str(number))},
        }
        pause, with_row = chance.random() * 0.05, number % ROWS == 0
        zombie_round(make_config(**overrides), overrides, url, pause, with_row=with_row)


def death_round(overrides: dict[str, Any], url: str, root: Path, pause: float) -> float:
    """Kill a program; return after how long its death is known by its lease, in seconds."""
    with program(overrides) as owner, Database(url) as database:
        time.sleep(pause)
        assert not over(database)
        owner.kill()
        killed = time.monotonic()
        owner.communicate()
        while not over(database):
            assert time.monotonic() - killed < LIMIT
            time.sleep(0.02)
        known = time.monotonic() - killed
        found = find.find_at(str(root / "r"))
        assert found is not None
        assert found.state == "died"
        with database.reading() as connection:
            assert [row.status for row in reading.find(connection, "")] != ["completed"]
    return known


@pytest.mark.parametrize("rounds", [1, pytest.param(100, marks=pytest.mark.storm)])
def test_a_killed_owner_is_known_by_its_lease(tmp_path: Path, rounds: int) -> None:
    """Its time is over within the time to live; here, where it is seen, it has died at once."""
    chance, known = random.Random(11), []
    for number in range(repetitions(rounds) if rounds > 1 else rounds):
        url, root = f"sqlite:///{tmp_path}/{number}.db", tmp_path / str(number)
        overrides: dict[str, Any] = {
            "registry": {"url": url, "lease": TTL},
            "logging": {"log_dir": str(root)},
        }
        known.append(death_round(overrides, url, root, chance.random() * 0.05))
    print(f"{len(known)} deaths, known after {max(known):.2f} s at most (lease {TTL:g} s)")
