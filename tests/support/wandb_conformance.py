"""Checks W&B's tracker against a server of its own; a process for itself, as the SDK is global.

python -m tests.support.wandb_conformance offline
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from keisei.journal.media import KINDS
from keisei.journal.reader import read_run
from keisei.testing import check_tracker
from keisei.testing.wandb_server import WandbServer
from keisei.trackers.base import RunInfo
from keisei.trackers.conformance import Series
from keisei.trackers.wandb.local_runs import LocalRun, attempts_in
from keisei.trackers.wandb.rows import number_in
from keisei.trackers.wandb.tracker import WandbTracker
from tests.support.wandb_file import find_run_files, read_run_file


def make_offline() -> WandbTracker:
    """Make a tracker that keeps its runs for `keisei sync`."""
    return WandbTracker(mode="offline")


def make_online() -> WandbTracker:
    """Make a tracker that sends its runs."""
    return WandbTracker(mode="online", offline_fallback=False)


def local_rows(directory: str) -> list[dict[str, Any]]:
    """Read the rows of all attempts from the run files."""
    files = [path for path in find_run_files(Path(directory)) if not path.parent.is_symlink()]
    files.sort(key=lambda path: path.stat().st_mtime_ns)
    return [row for file in files for row in read_run_file(file).history]


def series(rows: list[dict[str, Any]]) -> Series:
    """Return steps and values by metric, in the order of the rows' own numbers."""
    found: dict[str, list[tuple[int | None, float]]] = {}
    numbers = [tuple(map(int, row["_keisei"].split("/"))) for row in rows]
    for _, row in sorted(zip(numbers, rows, strict=True), key=lambda pair: pair[0]):
        for name, value in flat(row).items():
            if not name.startswith("_") and name.partition("/")[0] not in KINDS:
                found.setdefault(name, []).append((row.get("global_step"), float(value)))
    return found


def flat(row: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Join nested names with a slash, as they were logged."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        inner = flat(value, f"{above}{name}/") if isinstance(value, dict) else None
        found.update(inner if inner is not None else {above + name: value})
    return found


def sync(directory: str, run_id: str) -> None:
    """Do what `keisei sync` does for a run; all of it must be taken."""
    from keisei.trackers.wandb import backfill, upload

    upload.log_in()
    run = LocalRun("r", run_id, directory, alive=False, attempts=tuple(attempts_in(directory)))
    for outcome in backfill.sync_run(run, 20.0):
        assert outcome.state == "uploaded", outcome


def main(kind: str) -> None:
    """Run the check; print what was checked."""
    with WandbServer() as server:
        os.environ.update(server.environ(), WANDB__FILE_STREAM_TRANSMIT_INTERVAL="0.1")

        def read(info: RunInfo) -> Series:
            local = local_rows(info.directory)
            cuts = read_run(info.directory).cuts()
            local = [row for row in local if (number := number_in(row)) and number not in cuts]
            sync(info.directory, info.session_id)
            run = server.runs[info.session_id]
            assert len(run.history) == len(local)
            assert run.rows_received == len(local) or (run.rewinds and kind == "online")
            assert sorted(map(repr, series(run.history))) == sorted(map(repr, series(local)))
            in_order = [row["_keisei"] for row in run.history] == [row["_keisei"] for row in local]
            assert in_order or kind == "online"  # what a killed attempt had not sent comes last
            return series(run.history)

        for sentence in check_tracker(make_offline if kind == "offline" else make_online, read):
            print(sentence)


if __name__ == "__main__":
    main(sys.argv[1])
