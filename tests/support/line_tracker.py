"""A tracker as a stranger would write it: a file of lines, which knows what it holds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from keisei.run.status import FinalStatus
from keisei.trackers.base import Position, Record, Row, RunInfo, Tracker, TrackerRun


class LineRun(TrackerRun):
    """Appends a line for each record, and repairs a torn one."""

    def __init__(self, info: RunInfo) -> None:
        self.run_id, self.directory, self.mode = info.session_id, info.directory, "offline"
        path = os.path.join(info.directory, "lines.jsonl")
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115 - until `finish`
        self.file.seek(0)
        text = self.file.read()
        self.file.truncate(text.rfind(b"\n") + 1)
        whole = text.splitlines()[: text.count(b"\n")]
        self.last = Position(*json.loads(whole[-1])[:2]) if whole else None

    def send(self, records: Sequence[Record]) -> None:
        """Append them."""
        for record in records:
            said = [record.step, record.values] if isinstance(record, Row) else [record.name]
            self.file.write(json.dumps([record.attempt, record.seq, *said]).encode() + b"\n")
            self.last = Position(record.attempt, record.seq)

    def position(self) -> Position | None:
        """Return the position of the last whole line."""
        return self.last

    def finish(self, status: FinalStatus) -> None:
        """Write how the run ended beside the lines, and close the file."""
        if self.directory is not None:
            Path(self.directory, "lines.end").write_text(status)
        self.file.close()


class LineTracker(Tracker):
    """Starts such runs."""

    name = "lines"

    def start(self, run: RunInfo) -> LineRun:
        """Open the run's file."""
        return LineRun(run)


def lines_of(directory: str) -> list[list[object]]:
    """Read back what the tracker has: attempt, number, and what was said."""
    text = Path(directory, "lines.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def series_of(info: RunInfo) -> dict[str, list[tuple[int | None, float]]]:
    """Read back steps and values by metric."""
    series: dict[str, list[tuple[int | None, float]]] = {}
    for line in lines_of(info.directory):
        if len(line) == 4:
            step, values = line[2:]
            assert step is None or isinstance(step, int)
            assert isinstance(values, dict)
            for key, value in values.items():
                series.setdefault(key, []).append((step, value))
    return series
