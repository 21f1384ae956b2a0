"""Many sessions of one process with a W&B that is ill: each ends right, in its own run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keisei.testing.wandb_server import WandbServer
from tests.support.wandb_file import find_run_files, read_run_file
from tests.support.wandb_program import wait_until_nothing_is_left

CROWD = """
import json, sys, time
import anyio
from keisei import AsyncSessionManager, load_config

count, overrides = int(sys.argv[1]), sys.argv[2:]
config = load_config(overrides=["logging.wandb_enabled=true", "wandb.mode=online", *overrides])
told = {}


async def life(n):
    session = AsyncSessionManager(config, run_name=f"r{n}")
    try:
        async with session:
            for row in range(10):
                session.log_metrics({"who": n, "row": row})
                await anyio.sleep(0.01)
            if n % 10 == 3:
                raise ValueError("this one")
    except ValueError:
        pass
    told[session.run_name] = {"id": session.session_id, "status": session.status}


async def main():
    async with anyio.create_task_group() as group:
        for n in range(count):
            group.start_soon(life, n)

anyio.run(main)
print(json.dumps({"sessions": told, "ended": time.time()}), flush=True)
"""


def crowd(server: WandbServer, home: Path, count: int, *overrides: str) -> dict[str, Any]:
    """Run a crowd of sessions in one process, and return what it told."""
    done = subprocess.run(
        [sys.executable, "-c", CROWD, str(count), *overrides],
        env={**os.environ, **server.environ(), "HOME": str(home), "KEISEI_LOG_DIR": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    told: dict[str, Any] = json.loads(done.stdout)["sessions"]
    return told


@pytest.mark.requirement("WB-5", "WB-8", "FIN-1", "HOST-1", "HOST-4")
@pytest.mark.parametrize(
    ("mode", "in_process"),
    [
        ("ok", False),
        pytest.param("ok", True, marks=pytest.mark.storm),
        pytest.param("flaps", False, marks=pytest.mark.storm),
        pytest.param("flaps", True, marks=pytest.mark.storm),
    ],
)
def test_fifty_sessions_end_right_each_in_its_own_run(
    tmp_path: Path, mode: Any, in_process: bool
) -> None:
    """With a server that is well, and with one that flaps, no row is lost or in another's run."""
    with WandbServer() as server:
        server.set_mode(mode, schedule=("500", "ok"))
        limits = ["wandb.init_timeout=120", "wandb.finish_timeout=60"]
        told = crowd(server, tmp_path, 50, f"wandb.in_process={in_process}", *limits)
        wait_until_nothing_is_left(tmp_path, 60)
        assert len(told) == 50
        for name, session in told.items():
            number = int(name[1:])
            status = "failed" if number % 10 == 3 else "completed"
            record = json.loads((tmp_path / name / "session.json").read_text(encoding="utf-8"))
            assert record["status"] == session["status"] == status
            tracked = record["trackers"]["wandb"]
            rows = [
                (row["who"], row["row"])
                for path in find_run_files(tmp_path / name)
                for row in read_run_file(path).history
            ]
            assert rows == [(number, row) for row in range(10)], name
            if (tracked["mode"], tracked["state"]) == ("online", "finished"):
                run = server.runs[session["id"]]
                assert run.exit_code == (1 if status == "failed" else 0)
                assert [(row["who"], row["row"]) for row in run.history] == rows
            elif mode == "ok":
                pytest.fail(f"{name} was not tracked by a server that was well: {tracked}")
