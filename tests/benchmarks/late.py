"""Runs that a slow W&B server makes after their sessions have given them up: how many are closed.

The answer to the making of a run takes 5 s, or each answer; the sessions wait 3 s, and may not fall
back. What the server has made of them in the end is looked at: a run that is still open would be so
for ever.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import anyio

from keisei import AsyncSessionManager, load_config
from keisei.testing.wandb_server import WandbServer
from tests.benchmarks.measure import (
    Row,
    child_environment,
    met,
    progress,
    run_child,
    workplace,
)

ENDPOINTS = {"UpsertBucket": "the making of a run", None: "each answer"}
AT_ONCE = 5
ANSWER, INIT_TIMEOUT = 5.0, 3.0
PATIENCE = 60.0


def run(*, quick: bool) -> list[Row]:
    """Count the runs that are closed.

    Args:
        quick: have fewer.
    """
    rounds = 1 if quick else 20
    rows: list[Row] = []
    with workplace() as home:
        environ = child_environment(home)
        for endpoint, what in ENDPOINTS.items():
            made = closed = 0
            taken: list[float] = []
            for number in range(rounds):
                progress(f"late: {what}, {number + 1} of {rounds}")
                with workplace() as place, WandbServer() as server:
                    server.set_mode("slow", endpoint=endpoint, seconds=ANSWER)
                    taken += run_child("late", AT_ONCE, place, environ=environ | server.environ())
                    give_up = time.monotonic() + PATIENCE
                    while time.monotonic() < give_up:
                        if all(native.complete for native in server.runs.values()):
                            break
                        time.sleep(0.1)
                    made += len(server.runs)
                    closed += sum(native.complete for native in server.runs.values())
            which = f"{what} takes {ANSWER:g} s, {rounds * AT_ONCE} sessions"
            shown = f"{closed} of {made} made"
            rows.append(
                Row(f"{which}: late runs closed", shown, target="all", met=met(closed == made))
            )
            longest = f"{which}: the longest session, waiting {INIT_TIMEOUT:g} s for its start"
            rows.append(Row(longest, f"{max(taken):.2f} s"))
    return rows


async def _sessions(place: Path, count: int) -> list[float]:
    config = load_config(
        overrides={
            "logging": {"wandb_enabled": True, "log_dir": str(place), "log_level": "critical"},
            "wandb": {"mode": "online", "init_timeout": INIT_TIMEOUT, "offline_fallback": False},
        }
    )
    taken = []

    async def session() -> None:
        started = time.monotonic()
        async with AsyncSessionManager(config) as session:
            session.log_metrics({"loss": 1.0}, step=0)
        taken.append(time.monotonic() - started)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(session)
    return taken


def _child(count: str, place: str) -> None:
    print(anyio.run(_sessions, Path(place), int(count)))


if __name__ == "__main__":
    _child(*sys.argv[2:])
