"""What W&B shows of a resumed run, with the real SDK: what an uninterrupted one would have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keisei.testing.wandb_server import WandbServer
from tests.support.wandb_client import client_environ

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")

# Attempts of one run, each a program: where it goes on, up to where, and how it ends.
PROGRAM = """
import json, os, signal, sys, time
from keisei import SessionManager, load_config
first, last, ends, mode = json.loads(sys.argv[1])
config = load_config(overrides=["logging.wandb_enabled=true", "wandb.mode=" + mode,
                                "wandb.finish_timeout=20", "tracking.linger=20",
                                "monitoring.track=true"])
with SessionManager(config, run_name="r") as session:
    if first:
        session.resume_at(first - 1)
    for step in range(first, last):
        session.log_metrics({"loss": float(step)}, step=step)
        if step % 5 == 2:
            session.log_metrics({"system/cpu": 1000.0 * first + step})
        if step % 4 == 3:
            session.log_metrics({"epoch/loss": float(step)}, step=step // 4)
    session.flush()
    while session.get_session_summary()["trackers"]["wandb"]["behind"]:
        time.sleep(0.01)
    if ends == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    session.finalize_session(ends)
"""
SYNC = "from keisei.cli import main; main()"

Live = Callable[..., str]


@pytest.fixture
def live(tmp_path: Path, server: WandbServer) -> Live:
    """Run an attempt, or a command; returns what it has said."""

    def live(*what: Any, code: int = 0) -> str:
        told = ["sync", "--root", "runs"] if what == ("sync",) else [json.dumps(what)]
        done = subprocess.run(
            [sys.executable, "-c", SYNC if what == ("sync",) else PROGRAM, *told],
            env=client_environ(tmp_path, server.environ()) | {"KEISEI_LOG_DIR": "runs"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return live


def series(server: WandbServer) -> dict[str, list[tuple[int, float]]]:
    """Return steps and values by metric, in the order of the server's history."""
    (run,) = server.runs.values()
    rows = run.history
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        values = {"loss": row.get("loss"), "epoch/loss": row.get("epoch", {}).get("loss")}
        values["epoch/loss"] = row.get("epoch/loss", values["epoch/loss"])
        for key, value in values.items():
            if value is not None:
                found.setdefault(key, []).append((row["global_step"], value))
    return found


def measured(server: WandbServer) -> list[float]:
    """Return what was measured of the machine, in the order of the server's history."""
    (run,) = server.runs.values()
    return [x["system/cpu"] for x in run.history if "system/cpu" in x]


def used(*attempts: tuple[int, int]) -> list[float]:
    """Return what attempts have measured, by where each goes on, and up to where."""
    return [
        1000.0 * first + step
        for first, last in attempts
        for step in range(first, last)
        if step % 5 == 2
    ]


def uninterrupted(last: int) -> dict[str, list[tuple[int, float]]]:
    """Return what a run has that was never interrupted."""
    return {
        "loss": [(step, float(step)) for step in range(last)],
        "epoch/loss": [(step // 4, float(step)) for step in range(3, last, 4)],
    }


@pytest.mark.requirement("CKPT-7")
def test_a_run_that_was_killed_and_resumed(server: WandbServer, live: Live) -> None:
    """It has one id and one history, over attempts that go on from one another."""
    live(0, 20, "killed", "online", code=-9)
    server.wait_for(lambda: next(iter(server.runs.values())).complete, 30)
    live(12, 30, "preempted", "online")
    assert series(server) == uninterrupted(30)
    live(9, 40, "completed", "online")
    assert series(server) == uninterrupted(40)
    (run,) = server.runs.values()
    assert (run.rewinds, run.state, run.summary["loss"]) == (2, "finished", 39.0)
    assert "remain" not in live("sync")
    assert series(server) == uninterrupted(40)
    assert sorted(measured(server)) == sorted(used((0, 20), (12, 30), (9, 40)))


def test_a_server_without_the_rewind_keeps_what_it_has(server: WandbServer, live: Live) -> None:
    """One warning says so; the run goes on under its id, and each row is there once."""
    server._cloud.rewinds = False
    live(0, 20, "preempted", "online")
    said = live(12, 30, "completed", "online")
    assert said.count("wandb cannot drop what run r has left behind by resuming") == 1
    assert series(server)["loss"] == [(step, float(step)) for step in [*range(20), *range(12, 30)]]
    (run,) = server.runs.values()
    assert run.state == "finished"
    assert run.rows_received == len(run.history)


@pytest.mark.requirement("CKPT-7")
@pytest.mark.parametrize("first", ["offline", "online"])
def test_what_was_kept_offline_is_uploaded_without_what_was_left_behind(
    server: WandbServer, live: Live, first: str
) -> None:
    """Whether the attempt before it was kept, too, or had sent its rows already."""
    live(0, 20, "preempted", first)
    live(12, 30, "preempted", "offline")
    live(25, 40, "completed", "offline")
    live("sync")
    assert series(server) == uninterrupted(40)
    assert sorted(measured(server)) == sorted(used((0, 20), (12, 30), (25, 40)))
    (run,) = server.runs.values()
    assert run.rewinds == (first == "online")


def test_a_resume_from_before_the_first_row(server: WandbServer, live: Live) -> None:
    """Nothing of the history is left but what follows."""
    live(0, 8, "preempted", "online")
    live(-1, 12, "completed", "online")  # `resume_at(-2)`; the first row has step -1
    steps = [step for step, _ in series(server)["loss"]]
    assert steps == [*range(-1, 12)]
