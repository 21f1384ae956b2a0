"""What four trackers have of a run whose program is killed while it logs, and how soon.

A program logs 500 rows a second to TensorBoard, MLflow (SQLite), Trackio and W&B (a server on the
loopback), and is killed by SIGKILL at a random moment. The host processes send what the journal
still holds, and the end. Each tracker is then read by its own reader and compared with the journal;
the time is from the kill until the worker's cursor says that the run has ended there.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from keisei import AsyncSessionManager, load_config
from keisei.testing.wandb_server import WandbServer
from keisei.trackers import cursor
from tests.benchmarks import readers
from tests.benchmarks.measure import (
    ROOT,
    Row,
    child_environment,
    met,
    progress,
    run_child,
    spread,
    workplace,
)
from tests.benchmarks.readers import NAME, Held
from tests.benchmarks.trackers import TRACKERS, options_in

ROWS_AT_ONCE, PAUSE = 5, 0.01
PATIENCE = 40.0  # seconds for the host processes: more than their `linger`
SOON = 5.0
ENDS = {"tensorboard": None, "mlflow": "FAILED", "trackio": "run failed", "wandb": "1"}


def run(*, quick: bool) -> list[Row]:
    """Kill programs, and compare.

    Args:
        quick: kill fewer.
    """
    kills = 8 if quick else 200
    draw = random.Random(1)
    took: dict[str, list[float]] = {name: [] for name in TRACKERS}
    whole = dict.fromkeys(TRACKERS, 0)
    rows_of: list[int] = []
    with workplace() as home, workplace() as place, WandbServer() as server:
        environ = child_environment(home) | server.environ()
        environ["TRACKIO_DIR"] = str(place / "trackio")
        ids = {}
        for number in range(kills):
            if number % 10 == 0:
                progress(f"kills: {number} of {kills}")
            name = f"run-{number}"
            ids[name], killed_at = _kill(place, name, draw.uniform(0.3, 1.5), environ)
            for tracker, seconds in _waited(place / name, killed_at).items():
                took[tracker].append(seconds)
        progress("kills: reading")
        found = run_child("kills", "read", place, json.dumps(ids), environ=environ)
        for name, session_id in ids.items():
            rows = found[name].pop("journal")
            rows_of.append(len(rows))
            native = server.runs[session_id]
            numbers = [int(line[NAME]) for line in native.history if NAME in line]
            found[name]["wandb"] = [numbers, str(native.exit_code)]
            for tracker, (held, end) in found[name].items():
                equal = sorted(held) == rows
                whole[tracker] += equal and end == ENDS[tracker]
                if not equal or end != ENDS[tracker]:
                    progress(f"{name}: {tracker} has {len(held)} of {len(rows)}, its end is {end}")
    return [
        Row(
            f"{kills} programs killed ({statistics.median(rows_of):g} rows each): {tracker} has "
            f"every row once{'' if end is None else f', and the end ({end})'}",
            f"{whole[tracker]} of {kills}",
            target="all",
            met=met(whole[tracker] == kills),
        )
        for tracker, end in ENDS.items()
    ] + [
        Row(
            f"{kills} programs killed: until {tracker} has the end",
            spread(seconds, "s"),
            target=f"all <= {SOON:g} s",
            met=met(max(seconds) <= SOON),
        )
        for tracker, seconds in took.items()
    ]


def _kill(place: Path, name: str, after: float, environ: dict[str, str]) -> tuple[str, float]:
    """Start a program, and kill it; return the session's id, and when it was killed."""
    command = [sys.executable, "-m", "tests.benchmarks.kills", "child", "live", str(place), name]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        session_id = child.stdout.readline().strip()
        if not session_id:
            raise RuntimeError(f"the program did not begin:\n{child.stderr.read()}")
        time.sleep(after)
        child.kill()
        return session_id, time.time()


def _waited(directory: Path, killed_at: float) -> dict[str, float]:
    """Wait until each worker says that the run has ended; return how long that took by tracker."""
    took: dict[str, float] = {}
    while len(took) < len(TRACKERS) and time.time() < killed_at + PATIENCE:
        time.sleep(0.05)
        for name in set(TRACKERS) - set(took):
            with suppress(OSError):
                written_at = (directory / f"tracker.{name}.json").stat().st_mtime
                if cursor.load(str(directory), name).known.state == "finished":
                    took[name] = max(0.0, written_at - killed_at)
    return {name: took.get(name, PATIENCE) for name in TRACKERS}


async def _live(place: Path, name: str) -> None:
    options = options_in(place)
    config = load_config(
        overrides={
            "logging": {
                "log_dir": str(place),
                "run_name": name,
                "log_level": "critical",
                "wandb_enabled": True,
            },
            "wandb": {"mode": "online"},
            "tracking": {"trackers": {n: options[n] for n in TRACKERS if n != "wandb"}},
        }
    )
    async with AsyncSessionManager(config) as session:
        known = session.get_session_summary()["trackers"]
        if any(tracker["state"] != "live" for tracker in known.values()):
            raise RuntimeError(f"not all trackers are live: {known}")
        print(session.session_id, flush=True)
        number = 0
        while True:
            for _ in range(ROWS_AT_ONCE):
                session.log_metrics({NAME: number}, step=number)
                number += 1
            await anyio.sleep(PAUSE)


def _read(place: Path, ids: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return by run what the journal has, and what those trackers have that keep it here."""
    found: dict[str, dict[str, Any]] = {}
    for name, session_id in ids.items():
        directory = place / name
        reading: dict[str, Callable[[], Held]] = {
            "tensorboard": lambda d=directory: readers.tensorboard(d),  # type: ignore[misc]
            "mlflow": lambda n=name: readers.mlflow(place, n),  # type: ignore[misc]
            "trackio": lambda i=session_id: readers.trackio(i),  # type: ignore[misc]
        }
        held = {tracker: read() for tracker, read in reading.items()}
        found[name] = {tracker: [it.rows, it.end] for tracker, it in held.items()}
        found[name]["journal"] = readers.journal(directory)
    return found


def _child(what: str, place: str, argument: str) -> None:
    if what == "read":
        print(json.dumps(_read(Path(place), json.loads(argument))))
        sys.stdout.flush()
        os._exit(0)  # without what the trackers' libraries do at the end
    anyio.run(_live, Path(place), argument)


if __name__ == "__main__":
    _child(*sys.argv[2:])
