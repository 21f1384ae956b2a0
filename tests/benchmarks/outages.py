"""What the four trackers have of a run after many outages: all of its rows, and none twice.

A run is logged in several lives. In each one the trackers' `send` fails at random, now before it
has taken a batch and now after; at random moments the program is killed, or one of its host
processes, and the next life resumes the run while those of the one before may still deliver it. The
last one is let live. What then is at each tracker, by its own reader, is compared with the journal.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import anyio

from keisei import AsyncSessionManager, load_config
from keisei.run.session_file import SessionRecord
from tests.benchmarks import foreign, readers
from tests.benchmarks.measure import (
    ROOT,
    Row,
    child_environment,
    host_processes,
    met,
    progress,
    run_child,
    workplace,
)
from tests.benchmarks.readers import NAME, Held
from tests.benchmarks.trackers import TRACKERS, options_in

ROWS_A_LIFE = 1200
ERRORS_A_LIFE = 4  # one of each tracker
ERRORS = "errors"  # the file that gets a byte for each


def run(*, quick: bool) -> list[Row]:
    """Count the rows after outages.

    Args:
        quick: have fewer.
    """
    outages = 15 if quick else 50
    draw = random.Random(1)
    program_kills = host_kills = errors = attempt = 0
    with workplace() as home, workplace() as place:
        environ = child_environment(home) | {"TRACKIO_DIR": str(place / "trackio")}
        foreign.install(place / "site", [f"failing-{name}" for name in TRACKERS])
        last = False
        while not last:
            progress(f"outages: {program_kills + host_kills + errors} of {outages}")
            attempt += 1
            last = program_kills + host_kills + errors + ERRORS_A_LIFE + 1 >= outages
            of_host = attempt % 3 == 0
            after = draw.uniform(0.0, 2.0)
            _live(
                place, attempt, None if last else "host" if of_host else "program", after, environ
            )
            program_kills += not last and not of_host
            host_kills += not last and of_host
            with suppress(FileNotFoundError):
                errors = (place / ERRORS).stat().st_size
        found = run_child("outages", "read", place, environ=environ)
    rows = found.pop("journal")
    what = f"after {errors} errors, {program_kills} kills and {host_kills} of host processes"
    return [
        Row(
            f"rows at {name}, and in the journal (twice) {what}",
            f"{len(held):,} ({_twice(held)})",
            f"{len(rows):,} ({_twice(rows)})",
            target="the same, none twice",
            met=met(sorted(held) == sorted(rows) and not _twice(held)),
        )
        for name, held in found.items()
    ]


def _twice(numbers: list[int]) -> int:
    return sum(count - 1 for count in Counter(numbers).values())


def _live(
    place: Path, attempt: int, kills: str | None, after: float, environ: dict[str, str]
) -> None:
    """Let one life be lived, or ended."""
    command = [sys.executable, "-m", "tests.benchmarks.outages", "child", "live", str(place)]
    with subprocess.Popen(
        [*command, str(attempt), str(int(kills == "program"))],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:

        def kill() -> None:
            if kills == "program":
                child.kill()
            elif hosts := host_processes(child.pid):
                with suppress(ProcessLookupError):
                    os.kill(random.Random(attempt).choice(hosts), signal.SIGKILL)

        assert child.stdout is not None
        assert child.stderr is not None
        if child.stdout.readline() == "live\n" and kills is not None:
            threading.Timer(after, kill).start()
        said = child.stderr.read()
    if child.returncode and kills != "program":
        raise RuntimeError(f"life {attempt} has failed:\n{said}")


async def _life(place: Path, attempt: int, killed: bool) -> None:
    sys.path.append(str(place / "site"))
    config = load_config(
        overrides={
            "logging": {"log_dir": str(place), "run_name": "run", "log_level": "critical"},
            "tracking": {"finish_timeout": 60.0},
        }
    )
    async with AsyncSessionManager(config) as session:
        for number, (name, options) in enumerate(options_in(place).items()):
            if not await session.setup_remote_logging(
                f"failing-{name}",
                inner=name,
                options=options,
                errors=ERRORS_A_LIFE // len(TRACKERS),
                seed=attempt * 10 + number,
                told=str(place / ERRORS),
            ):
                raise RuntimeError(f"{name} did not start")
        print("live", flush=True)
        for row in range(ROWS_A_LIFE):
            number = attempt * 10_000 + row
            session.log_metrics({NAME: number}, step=number)
            if row % 10 == 0:
                await anyio.sleep(0.01)
        if killed:
            await anyio.sleep(60)  # until it is
    summary = session.get_session_summary()["trackers"]
    if any(tracker["behind"] for tracker in summary.values()):
        raise RuntimeError(f"rows are left: {summary}")


def _read(place: Path) -> dict[str, list[int]]:
    """Return the numbers of the rows by tracker, and the journal's."""
    directory = place / "run"
    record = SessionRecord.parsed((directory / "session.json").read_bytes())
    assert record is not None
    held: dict[str, Held] = {
        "tensorboard": readers.tensorboard(directory),
        "mlflow": readers.mlflow(place, "run"),
        "trackio": readers.trackio(record.session_id),
        "wandb": readers.wandb_files(directory),
    }
    return {"journal": readers.journal(directory)} | {name: it.rows for name, it in held.items()}


def _child(what: str, place: str, *numbers: str) -> None:
    if what == "read":
        print(json.dumps(_read(Path(place))))
    else:
        anyio.run(_life, Path(place), int(numbers[0]), bool(int(numbers[1])))


if __name__ == "__main__":
    _child(*sys.argv[2:])
