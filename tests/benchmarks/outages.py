"""What the four trackers have of a run after many outages: all of its rows, and none twice.

A run is logged in several lives. In each one the trackers' `send` fails at random, now before it
has taken a batch and now after; at random moments the process is killed, and the next life
resumes the run. The last one is let live. What then is at each tracker, by its own reader, is
compared with the journal.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from keisei import AsyncSessionManager, load_config
from keisei.journal.reader import read_run
from keisei.trackers import worker
from keisei.trackers.base import Record, RunInfo, Tracker, TrackerRun
from tests.benchmarks.lanes import TRACKERS
from tests.benchmarks.measure import ROOT, Row, child_environment, progress, run_child, workplace
from tests.support.wandb_file import find_run_files, read_run_file

NAME = "n"
ROWS_A_LIFE = 1200
ERRORS_A_LIFE = 4  # one of each tracker


def built_in(name: str, place: Path) -> Tracker:
    """Make a built-in tracker that keeps what it gets in a directory.

    Args:
        name: its name.
        place: the directory.
    """
    if name == "tensorboard":
        from keisei.trackers.tensorboard import TensorBoardTracker

        return TensorBoardTracker()
    if name == "mlflow":
        from keisei.trackers.mlflow.tracker import MlflowTracker

        return MlflowTracker(tracking_uri=f"sqlite:///{place}/mlflow.db")
    if name == "trackio":
        from keisei.trackers.trackio import TrackioTracker

        os.environ["TRACKIO_DIR"] = str(place / "trackio")
        return TrackioTracker()
    from keisei.trackers.wandb.tracker import WandbTracker

    return WandbTracker(mode="offline")


def run(*, quick: bool) -> list[Row]:
    """Count the rows after outages.

    Args:
        quick: have fewer.
    """
    outages = 15 if quick else 50
    draw = random.Random(1)
    kills = errors = 0
    with workplace() as home, workplace() as place:
        environ = child_environment(home) | {"TRACKIO_DIR": str(place / "trackio")}
        while kills + errors < outages:
            progress(f"outages: {kills + errors} of {outages}")
            last = kills + errors + ERRORS_A_LIFE + 1 >= outages
            kill_after = None if last else draw.uniform(0.0, 2.0)
            errors += _live(place, kills + 1, kill_after, environ)
            kills += not last
            if last:
                break
        found = run_child("outages", "read", place, environ=environ)
    journal = found.pop("journal")
    return [
        Row(
            f"rows at {name}, in the journal (twice) after {errors} errors and {kills} kills",
            f"{rows:,} ({twice})",
            f"{journal[0]:,} ({journal[1]})",
            target="the same, none twice",
            met="yes" if equal and not twice else "NO",
        )
        for name, (rows, twice, equal) in found.items()
    ]


def _live(place: Path, attempt: int, kill_after: float | None, environ: dict[str, str]) -> int:
    """Let one life be lived, or ended; give how many sends have failed."""
    command = [sys.executable, "-m", "tests.benchmarks.outages", "child", "live", str(place)]
    child = subprocess.Popen(
        [*command, str(attempt), str(int(kill_after is None))],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    errors = 0
    for line in child.stdout:
        if line == "live\n" and kill_after is not None:
            threading.Timer(kill_after, child.kill).start()
        errors += line == "error\n"
    if child.wait() and kill_after is None:
        raise RuntimeError(f"the last life has failed: {child.returncode}")
    return errors


class Failing(Tracker):
    """A tracker whose `send` fails a few times, before or after it has taken a batch.

    Args:
        inner: the true tracker.
        draw: tells when.
    """

    def __init__(self, inner: Tracker, draw: random.Random) -> None:
        self.name, self.start_timeout = inner.name, inner.start_timeout
        self._inner, self._draw = inner, draw
        self._left = ERRORS_A_LIFE // len(TRACKERS)

    def start(self, run: RunInfo) -> TrackerRun:
        """Start the true tracker's run."""
        started = self._inner.start(run)
        send = started.send

        def failing(records: Sequence[Record]) -> None:
            fails = self._left > 0 and self._draw.random() < 0.5
            self._left -= fails
            before = self._draw.random() < 0.5
            if not (fails and before):
                send(records)
            if fails:
                print("error", flush=True)
                raise ConnectionError("an outage")

        started.send = failing  # type: ignore[method-assign]
        return started


async def _life(place: Path, attempt: int, last: bool) -> None:
    worker._FIRST_PAUSE = 0.05
    config = load_config(
        overrides={
            "logging": {"log_dir": str(place), "run_name": "run", "log_level": "critical"},
            "wandb": {"finish_timeout": 60.0},
        }
    )
    async with AsyncSessionManager(config) as session:
        for number, name in enumerate(TRACKERS):
            draw = random.Random(attempt * 10 + number)
            if not await session.setup_remote_logging(Failing(built_in(name, place), draw)):
                raise RuntimeError(f"{name} did not start")
        print("live", flush=True)
        for row in range(ROWS_A_LIFE):
            number = attempt * 10_000 + row
            session.log_metrics({NAME: number}, step=number)
            if row % 10 == 0:
                await anyio.sleep(0.01)
        if not last:
            await anyio.sleep(60)  # until it is killed
    summary = session.get_session_summary()["trackers"]
    if any(tracker["behind"] for tracker in summary.values()):
        raise RuntimeError(f"rows are left: {summary}")


def _read(place: Path) -> dict[str, tuple[int, int, bool]]:
    """Give by tracker: its rows, how many of them came before, and if they are the journal's."""
    run_directory = place / "run"
    journal = [int(row.values[NAME]) for row in read_run(run_directory).rows(True)]
    found = {"journal": journal}
    found |= {name: _numbers(name, place, run_directory) for name in TRACKERS}
    return {
        name: (
            len(numbers),
            sum(count - 1 for count in Counter(numbers).values()),
            sorted(numbers) == sorted(journal),
        )
        for name, numbers in found.items()
    }


def _numbers(name: str, place: Path, run_directory: Path) -> list[int]:
    """Read the rows of a tracker, with its own reader."""
    values: list[Any]
    if name == "tensorboard":
        reading: Any = importlib.import_module(
            "tensorboard.backend.event_processing.event_accumulator"
        )
        guidance = reading.STORE_EVERYTHING_SIZE_GUIDANCE
        events = reading.EventAccumulator(str(run_directory / "tensorboard"), guidance).Reload()
        values = [event.value for event in events.Scalars(NAME)]
    elif name == "mlflow":
        client: Any = importlib.import_module("mlflow").MlflowClient(f"sqlite:///{place}/mlflow.db")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        (native,) = client.search_runs(experiments)
        values = [it.value for it in client.get_metric_history(native.info.run_id, NAME)]
    elif name == "trackio":
        storage: Any = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
        (run_id,) = (record["id"] for record in storage.get_run_records("keisei"))
        values = [row[NAME] for row in storage.get_logs("keisei", run_id=run_id)]
    else:
        files = [path for path in find_run_files(run_directory) if not path.parent.is_symlink()]
        values = [row[NAME] for path in files for row in read_run_file(path).history]
    return [int(value) for value in values]


def _child(what: str, place: str, *numbers: str) -> None:
    if what == "read":
        print(json.dumps(_read(Path(place))))
    else:
        anyio.run(_life, Path(place), int(numbers[0]), bool(int(numbers[1])))


if __name__ == "__main__":
    _child(*sys.argv[2:])
