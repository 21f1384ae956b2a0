"""Trackers with one fault each, for the conformance kit to find."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from keisei.run.status import FinalStatus
from keisei.trackers.base import Position, Record, Row, RunInfo
from tests.support.line_tracker import LineRun, LineTracker

_opened: list[LineRun] = []


def close_all() -> None:
    """Close the files of the runs that a failed check has not brought to their end."""
    while _opened:
        _opened.pop().file.close()


class WrongTracker(LineTracker):
    """Keeps its runs, to be closed."""

    def start(self, run: RunInfo) -> LineRun:
        """Start a run."""
        _opened.append(started := self.make(run))
        return started

    def make(self, run: RunInfo) -> LineRun:
        """Make a run."""
        return LineRun(run)


class OneCurrentRun(WrongTracker):
    """Sends to the run that was started last, as SDKs with a 'current run' do."""

    current: LineRun

    def start(self, run: RunInfo) -> LineRun:
        """Make it the current one."""
        OneCurrentRun.current = started = super().start(run)
        started.send = lambda records: LineRun.send(OneCurrentRun.current, records)  # type: ignore[method-assign]
        return started


class Buffering(WrongTracker):
    """Writes when the run ends."""

    def make(self, run: RunInfo) -> LineRun:
        """Make a run with a buffer."""
        return _BufferedRun(run)


class _BufferedRun(LineRun):
    def __init__(self, info: RunInfo) -> None:
        super().__init__(info)
        self.buffer: list[Record] = []

    def send(self, records: Sequence[Record]) -> None:
        self.buffer += records
        for record in records[-1:]:
            self.last = Position(record.attempt, record.seq)

    def finish(self, status: FinalStatus) -> None:
        super().send(self.buffer)
        super().finish(status)


class OnlyFinite(WrongTracker):
    """Raises where a value is not finite."""

    def make(self, run: RunInfo) -> LineRun:
        """Make a run that looks at its values."""
        return _FiniteRun(run)


class _FiniteRun(LineRun):
    def send(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, Row) and not all(map(math.isfinite, record.values.values())):
                raise ValueError("out of range")
        super().send(records)


class StartsAnew(WrongTracker):
    """Begins an empty file in each attempt."""

    def start(self, run: RunInfo) -> LineRun:
        """Remove what there is."""
        path = os.path.join(run.directory, "lines.jsonl")
        if os.path.exists(path):
            os.unlink(path)
        return super().start(run)


class WithoutId(WrongTracker):
    """Has a number for an id."""

    def start(self, run: RunInfo) -> LineRun:
        """Start a run with it."""
        started = super().start(run)
        started.run_id = 7  # type: ignore[assignment]
        return started
