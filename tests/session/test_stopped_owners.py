"""A program that is stopped, loses its run meanwhile, and is woken, changes nothing of it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keisei._io.files import OpenDirectory
from keisei.trackers import cursor
from tests.support.storms import repetitions

PROGRAM = """
import sys
from keisei import AppConfig, SessionManager
from tests.support.storms import repetitions
with SessionManager(AppConfig(), run_name="r") as session:
    for step in range(100_000_000):
        session.log_metrics({"loss": 1.0}, step=step)
        if step % 10 == 0:
            session.flush()
            session.log_evaluation({"score": step})
        if step % 20 == 0:
            session.save_checkpoint({"step": step}, step)
        if step == 40:
            print("trains", flush=True)
"""
LIMIT = 60.0  # seconds for a program on a busy machine


def content(run: Path) -> dict[str, bytes]:
    """Return what a reader finds of a run, by paths there: all files but what is being written."""
    found = {}
    for path in run.rglob("*"):
        name = str(path.relative_to(run))
        if path.is_file() and not path.is_symlink() and ".tmp" not in name:
            found[name] = path.read_bytes()
    return found


def one_round(root: Path, chance: random.Random) -> None:
    """Start a program, stop it at some instant, take its run over, wake it, and look."""
    environ = {**os.environ, "KEISEI_LOG_DIR": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "trains\n", program.communicate()
            time.sleep(chance.random() * 0.05)  # the instant of the stop is the point
            program.send_signal(signal.SIGSTOP)
            os.waitpid(program.pid, os.WUNTRACED)
            run = root / "r"
            record = json.loads((run / "session.json").read_text())
            record |= {"attempt": 2, "owner": record["owner"] | {"pid": 4242}}
            (run / "next").write_text(json.dumps(record))
            os.replace(run / "next", run / "session.json")
            before = content(run)
            program.send_signal(signal.SIGCONT)
            _, complaint = program.communicate(timeout=LIMIT)
        finally:
            program.kill()
    assert "TakenOverError" in complaint
    assert "has taken the run over, as attempt 2" in complaint
    after = content(run)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed <= LINES, changed
    for name in changed:  # a line that was being written, and nothing else
        assert after[name].startswith(before[name])
        assert after[name].count(b"\n") <= before[name].count(b"\n") + 25


# Lines of one batch that was under way cannot be taken back: the next owner appends to these, too.
LINES = {"training.log", "evaluation.log"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
@pytest.mark.parametrize("rounds", [5, pytest.param(200, marks=pytest.mark.storm)])
def test_a_stopped_owner_that_is_woken_writes_nothing(tmp_path: Path, rounds: int) -> None:
    """Session file, config, journal and checkpoints are as the takeover has found them."""
    chance = random.Random(24)
    for number in range(repetitions(rounds) if rounds > 5 else rounds):
        one_round(tmp_path / str(number), chance)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
def test_a_stopped_owners_tracker_lets_the_next_attempt_deliver(tmp_path: Path) -> None:
    """Its process lives as long as the program does, and gives up the lock all the same."""
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/registry.db"
    environ = {**os.environ, "KEISEI_LOG_DIR": str(tmp_path), "KEISEI_REGISTRY_URL": url}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "trains\n"
            run = tmp_path / "r"
            deadline = time.monotonic() + LIMIT
            while not (run / "tracker.registry.json").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            program.send_signal(signal.SIGSTOP)
            os.waitpid(program.pid, os.WUNTRACED)
            record = json.loads((run / "session.json").read_text())
            (run / "next").write_text(json.dumps(record | {"attempt": 2}))
            os.replace(run / "next", run / "session.json")
            with OpenDirectory(str(run)) as directory:
                cursor.deliverer(directory, "registry", LIMIT).release()
            assert program.poll() is None
        finally:
            program.kill()
