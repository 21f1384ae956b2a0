"""Parts of a run: reading a metric of 1,000 of them merged, and what logging as a member costs.

- 1,000 parts of 1,000 rows each, made by 50 processes; the mean of a metric by step, read by a
  process of its own, against a plain reading of the files' bytes.
- `log_metrics` of a member against that of the owner's session, in turns, in one process.
- A handle, pickled through multiprocessing 1,000 times, by spawn and by fork; and its size.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from keisei import RunHandle, SessionManager, SessionMember, load_config
from keisei.journal.reader import read_run
from keisei.journal.writer import Journal
from tests.benchmarks.measure import Row, child_environment, progress, row, run_child, workplace

PARTS, ROWS, MAKERS = 1000, 1000, 50
CALLS, TURNS = 20_000, 20
HANDLES = 1000


def run(*, quick: bool) -> list[Row]:
    """Measure parts.

    Args:
        quick: take fewer repeats.
    """
    repeats = 3 if quick else 7
    reads: list[dict[str, float]] = []
    calls: list[dict[str, float]] = []
    with workplace() as home:
        environ = child_environment(home)
        with workplace() as place:
            progress(f"parts: {PARTS} of them are made")
            made = run_child("parts", "make", place, environ=environ)
            for repeat in range(repeats):
                progress(f"parts: reading {repeat + 1} of {repeats}")
                reads.append(run_child("parts", "read", place, environ=environ))
        for repeat in range(repeats):
            progress(f"parts: calls {repeat + 1} of {repeats}")
            with workplace() as place:
                calls.append(run_child("parts", "log", place, environ=environ))
        sent = []
        for method in ("fork", "spawn"):
            progress(f"parts: handles by {method}")
            with workplace() as place:
                sent.append(run_child("parts", method, place, environ=environ))

    return [
        row(
            f"the mean of a metric, merged of {PARTS:,} parts of {ROWS:,} rows (made by "
            f"{made['processes']:.0f} processes), against reading their bytes",
            [sample["mean"] for sample in reads],
            [sample["bytes"] for sample in reads],
            unit="s",
            at_most=3.0,
        ),
        row(
            "log_metrics of a member, against the owner's",
            [sample["member"] for sample in calls],
            [sample["owner"] for sample in calls],
            unit="us",
            ratio_at_most=1.1,
        ),
        row("a handle, pickled", [sent[0]["size"]], unit="KiB", at_most=1.0),
        *(
            row(
                f"a handle to another process and back by {method}: failures of {HANDLES:,}",
                [sample["failures"]],
                unit="",
                at_most=0,
            )
            for method, sample in zip(("fork", "spawn"), sent, strict=True)
        ),
    ]


def _make(task: tuple[str, int]) -> int:
    place, maker = task
    for number in range(PARTS // MAKERS):
        part = f"rank{maker * (PARTS // MAKERS) + number + 1}"
        with Journal(place, 1, part=part) as journal:
            for step in range(ROWS):
                journal.log_metrics({"loss": step / 7, "reward": step / 3, "n": step}, step)
    return os.getpid()


def _made(place: str) -> dict[str, float]:
    with multiprocessing.get_context("fork").Pool(MAKERS) as pool:
        makers = pool.map(_make, [(place, maker) for maker in range(MAKERS)], chunksize=1)
    return {"processes": len(set(makers))}


def _read(place: str) -> dict[str, float]:
    began = perf_counter()
    for path in Path(place).iterdir():
        path.read_bytes()
    read = perf_counter()
    steps, values = read_run(place).columns("loss", reduce="mean")
    ended = perf_counter()
    assert (len(steps), values[7]) == (ROWS, 1.0)
    return {"bytes": read - began, "mean": ended - read}


def _log(place: str) -> dict[str, float]:
    config = load_config(overrides={"logging": {"log_dir": place}})
    took = {"member": 0.0, "owner": 0.0}
    with (
        SessionManager(config, run_name="r") as session,
        SessionMember(session.handle(), role="a") as member,
    ):
        faces: dict[str, Any] = {"member": member, "owner": session}
        for turn in range(TURNS):
            for name in sorted(faces, reverse=turn % 2 == 0):
                face = faces[name]
                began = perf_counter()
                for step in range(CALLS // TURNS):
                    face.log_metrics({"loss": 0.5, "reward": 1.5, "entropy": 2.5}, step)
                took[name] += perf_counter() - began
                face.flush()
    return {name: seconds / CALLS for name, seconds in took.items()}


def _echo(handle: RunHandle) -> RunHandle:
    return handle


def _sent(place: str, method: str) -> dict[str, float]:
    config = load_config(overrides={"logging": {"log_dir": place}})
    with SessionManager(config, run_name="r") as session:
        handle = session.handle()
        with multiprocessing.get_context(method).Pool(2) as pool:
            back = list(pool.imap_unordered(_echo, [handle] * HANDLES))
    failures = HANDLES - sum(one == handle for one in back)
    return {"failures": failures, "size": len(pickle.dumps(handle))}


def _child(what: str, place: str) -> None:
    work = {"make": _made, "read": _read, "log": _log}.get(what) or partial(_sent, method=what)
    print(json.dumps(work(place)))


if __name__ == "__main__":
    _child(*sys.argv[2:])
