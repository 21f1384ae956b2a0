"""Long storms with W&B's real SDK: `pytest -m storm -s` runs them and prints their figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keisei.testing.wandb_server import WandbServer
from tests.support.storms import repetitions
from tests.support.wandb_file import find_run_files, read_run_file

pytestmark = pytest.mark.storm
ROUNDS = repetitions(5)  # of twenty sessions each

ROUND = """
import json, sys
import anyio
from keisei import AsyncSessionManager, load_config

count, prefix, overrides = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
config = load_config(overrides=["logging.wandb_enabled=true", "wandb.mode=online", *overrides])
active = []


async def start(n):
    session = AsyncSessionManager(config, run_name=f"{prefix}-{n}")
    await session.setup_directories()
    active.append(await session.setup_wandb())
    session.log_metrics({"n": n})
    sessions.append(session)


sessions = []


async def main():
    async with anyio.create_task_group() as group:
        for n in range(count):
            group.start_soon(start, n)
    print(json.dumps(active), flush=True)
    await anyio.to_thread.run_sync(sys.stdin.readline)
    for session in sessions:
        await session.finalize_session()

anyio.run(main)
"""


def start_round(
    server: WandbServer, home: Path, prefix: str, *overrides: str
) -> subprocess.Popen[str]:
    """Start a process of twenty sessions."""
    return subprocess.Popen(
        [sys.executable, "-c", ROUND, "20", prefix, *overrides],
        env={**os.environ, **server.environ(), "HOME": str(home), "KEISEI_LOG_DIR": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_hundred_late_starts_are_closed_on_the_server(tmp_path: Path) -> None:
    """Every start that comes alive after its deadline is ended there as failed."""
    ages: list[float] = []
    for number in range(ROUNDS):
        with WandbServer() as server:
            server.set_mode("silent", endpoint="UpsertBucket")
            limits = ["wandb.init_timeout=6", "wandb.offline_fallback=false"]
            process = start_round(server, tmp_path, f"late{number}", *limits)
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == [False] * 20
            server.set_mode("ok", endpoint="UpsertBucket")

            def all_closed(server: WandbServer = server) -> bool:
                runs = server.runs.values()  # a copy, as it is now
                return len(runs) == 20 and all(run.complete for run in runs)

            server.wait_for(all_closed, timeout=60)
            for run in server.runs.values():
                assert run.exit_code == 1
                assert run.ended_at is not None
                ages.append(run.ended_at - run.created_at)
            process.communicate("\n", timeout=60)
    print(f"\n{len(ages)} late starts closed, the slowest {max(ages):.2f} s after it came alive")
    assert len(ages) == 20 * ROUNDS


def test_a_hundred_failed_starts_fall_back_under_their_own_id(tmp_path: Path) -> None:
    """A start that the server refuses gives an offline run of the same id, with its rows."""
    same = 0
    for number in range(ROUNDS):
        with WandbServer() as server:
            server.set_mode("401", endpoint="UpsertBucket")
            process = start_round(server, tmp_path, f"failed{number}", "wandb.init_timeout=20")
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == [True] * 20
            process.communicate("\n", timeout=60)
        for n in range(20):
            run = tmp_path / f"failed{number}-{n}"
            record = json.loads((run / "session.json").read_text(encoding="utf-8"))
            tracked = record["trackers"]["wandb"]
            assert tracked["mode"] == "offline"
            assert tracked["run_id"] == record["session_id"]
            rows = [row["n"] for p in find_run_files(run) for row in read_run_file(p).history]
            assert rows == [n]
            same += 1
    print(f"\n{same} of {20 * ROUNDS} failed starts went on offline under the same id")
