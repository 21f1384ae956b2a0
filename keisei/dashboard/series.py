"""The rows of one run, kept as columns in memory and read on as they are written."""

from __future__ import annotations

import json
import math
import operator
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from keisei.journal.attempt import AttemptReader
from keisei.journal.blocks import ColumnBatch, as_columns
from keisei.journal.decoding import Batch
from keisei.journal.history import History
from keisei.journal.reader import RunJournal
from keisei.journal.records import Event, Position, is_system
from keisei.journal.superseding import RESUME, Cuts, Stretches

Axis = Literal["step", "time"]

MEDIA = "keisei/media"
MOST_EVENTS = 2_000  # of a run that are kept, the last ones
_MOST_TEXT = 20_000  # characters of an event's data
_REREAD = 10.0  # seconds: how often a run is read again of which a later attempt hides rows unsaid
_ORDERED = 10_000  # xs that are looked at together
_SHARE = 20  # what takes long to read again is read so much more rarely


class Stopped(Exception):
    """Nobody waits for what is being read."""


@dataclass
class Table:
    """The rows of one shape.

    Attributes:
        times: when each was logged, in seconds since the epoch.
        steps: the step of each; that of the row before it where it has none.
        batches: the columns of their values, as they came.
    """

    times: array[float] = field(default_factory=lambda: array("d"))
    steps: array[float] = field(default_factory=lambda: array("d"))
    batches: list[Sequence[array[float]]] = field(default_factory=list)
    _in_order: dict[Axis, tuple[int, bool]] = field(default_factory=dict)
    _columns: dict[int, tuple[int, array[float]]] = field(default_factory=dict)

    def column(self, index: int) -> array[float]:
        """Return the values of one metric; they are unpacked when they are first asked for."""
        done, column = self._columns.get(index, (0, array("d")))
        batches = len(self.batches)
        for values in self.batches[done:batches]:
            column.extend(values[index])
        self._columns[index] = batches, column
        return column

    def in_order(self, axis: Axis) -> bool:
        """Return whether steps, or times, only grow; each is looked at once."""
        xs = self.steps if axis == "step" else self.times
        done, grows = self._in_order.get(axis, (0, True))
        end = len(xs)
        while grows and done < end - 1:
            part = xs[done : done + _ORDERED].tolist()
            grows = sorted(part) == part  # where they are, this is the quickest
            done += len(part) - 1
        self._in_order[axis] = done, grows
        return grows

    def extend(self, batch: ColumnBatch, step: float) -> float:
        """Add rows; return the last step.

        Args:
            batch: the rows.
            step: the step before them, NaN where there was none.
        """
        steps = batch.steps
        if math.isnan(sum(steps)):
            steps = array("d", _carried(steps, step))
        self.steps.extend(steps)
        self.times.extend(batch.times)
        self.batches.append(batch.values)
        return steps[-1] if len(steps) else step


class RunSeries:
    """The metrics and events of one run, or of one part of it; thread-safe, and it blocks.

    Args:
        directory: the run's directory.
        part: the part; ``None`` for the owner's own.
        stopping: asked now and then while it is read; once true, reading is given up.

    Attributes:
        rows: how many rows there are by now.
        share: how much of the journals is read, from 0 to 1.
        version: changes whenever anything has.
        events: the last events, those that name media apart.
        media: the last of those.
        cuts: what the run's resumes have left behind.
        bytes: about how much memory it takes.
    """

    def __init__(
        self, directory: str, part: str | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.directory, self.part = directory, part
        self.rows, self.share, self.version, self.bytes = 0, 0.0, 0, 0
        self.events: list[Event] = []
        self.media: list[Event] = []
        self._stopping = stopping
        self._reading, self._unpacking = threading.Lock(), threading.Lock()
        self._forget()
        self._known: tuple[object, ...] | None = None
        self._unsaid = False  # whether new rows may hide old ones
        self._read_at, self._took, self._stale = 0.0, 0.0, False

    def _forget(self) -> None:
        self.close()
        self._tables: dict[tuple[str, ...], Table] = {}
        self._holders: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        self._step, self.begun = math.nan, math.nan
        self.rows, self.bytes, self.events, self.media = 0, 0, [], []
        self.cuts = Cuts()

    _reader: AttemptReader | None = None

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def refresh(self) -> int:
        """Read what has come since; return the version.

        Raises:
            OSError: the run is gone, or cannot be read.
            Stopped: nobody waits for it any more.
        """
        with self._reading:
            info = os.stat(self.directory)
            known = (info.st_dev, info.st_ino, info.st_mtime_ns)
            if self._known is None or known[:2] != self._known[:2]:
                attempts = self._attempts()
                self._read(attempts)
                self._known = (*known, tuple(attempts))
            elif known != self._known[:3] and tuple(attempts := self._attempts()) != self._known[3]:
                self._read(attempts)
                self._known = (*known, tuple(attempts))
            else:
                self._known = (*known, self._known[3])
                self._read_on()
            return self.version

    def keys(self) -> list[str]:
        """Return the names of all metrics, in the order in which they came."""
        return list(self._holders)

    def last_step(self) -> float | None:
        """Return the last step; ``None`` where no row has one."""
        return None if math.isnan(self._step) else self._step

    def series(self, key: str, axis: Axis) -> tuple[array[float], array[float]]:
        """Return the xs, in order, and the values of a metric.

        Args:
            key: the metric's name.
            axis: what x is: the training step, or the seconds since the run's first row.
        """
        with self._unpacking:
            return self._series(key, axis)

    def _series(self, key: str, axis: Axis) -> tuple[array[float], array[float]]:
        found: list[tuple[float, float, float]] = []
        holders = [(self._tables[keys], index) for keys, index in self._holders.get(key, ())]
        if len(holders) == 1 and holders[0][0].in_order(axis):
            table, index = holders[0]
            values = table.column(index)
            xs = table.steps if axis == "step" else table.times
            count = min(len(xs), len(values))
            xs, values = xs[:count], values[:count]
        else:
            for table, index in holders:
                found += zip(table.times, table.steps, table.column(index), strict=False)
            found.sort(key=operator.itemgetter(0 if axis == "time" else 1))
            xs = array("d", [row[axis == "step"] for row in found])
            values = array("d", [row[2] for row in found])
        first = next((i for i, x in enumerate(xs) if x == x), len(xs))  # rows without any step
        if first:
            xs, values = xs[first:], values[first:]
        if axis == "time" and len(xs):
            begun = self.begun
            xs = array("d", [x - begun for x in xs])
        return xs, values

    def _attempts(self) -> list[int]:
        return RunJournal(self.directory, self.part).attempts()

    def _read(self, attempts: list[int]) -> None:
        """Read everything anew."""
        started = time.monotonic()
        self._forget()
        self.share, self._stale = 0.0, False
        size = sum(self._size(attempt) for attempt in attempts) or 1
        if len(attempts) > 1 or not self._read_only(attempts, size):
            self._forget()
            self._read_all(attempts, size)
        self.share = 1.0
        self.version += 1
        self._read_at, self._took = time.monotonic(), time.monotonic() - started

    def _read_only(self, attempts: list[int], size: int) -> bool:
        """Read the only attempt; return whether it does not go back anywhere."""
        self._unsaid = False
        for attempt in attempts:
            reader = self._reader = AttemptReader(self.directory, attempt, part=self.part)
            for batch in reader.column_batches():
                if self._takes_back(batch, attempt):
                    return False
                self._take(reader, batch, None)
                self.share = reader.position / size
                self._check()
        return True

    def _read_all(self, attempts: list[int], size: int) -> None:
        """Read all attempts, without what was superseded."""
        journal = RunJournal(self.directory, self.part, attempts)
        history = History(self.directory, attempts, self.part)
        cuts = self.cuts = history.cuts()
        self._unsaid = len(attempts) > 1 and cuts.known.attempt < attempts[-1]
        if history.predecessors(cuts):
            self._read_hidden(journal, attempts)
            return
        done = 0
        for attempt in attempts:
            self.close()
            reader = self._reader = AttemptReader(self.directory, attempt, part=self.part)
            stretches = cuts.of(attempt)
            for batch in reader.column_batches():
                self._take(reader, batch, stretches)
                self.share = (done + reader.position) / size
                self._check()
            done += reader.position

    def _read_hidden(self, journal: RunJournal, attempts: list[int]) -> None:
        """Read rows one by one, of which later ones hide some that nothing has told of."""
        rows: list[tuple[float | int | bool | None, ...]] = []
        shape: tuple[str, ...] = ()
        for _, superseded, _, keys, raw in journal.merged():
            if superseded:
                continue
            if keys != shape or len(rows) >= 4096:
                self._add_rows(shape, rows)
                shape, rows = keys, []
                self._check()
            rows.append(raw)
        self._add_rows(shape, rows)
        for attempt in attempts:
            self.close()
            self._reader = AttemptReader(self.directory, attempt, part=self.part)
            for batch in self._reader.batches():
                if batch.shape is None:
                    self._add_events(batch, attempt)
                self._check()

    def _add_rows(self, keys: tuple[str, ...], rows: list[Any]) -> None:
        if rows and keys:
            self._add(keys, as_columns((0, len(keys)), 0, rows))

    def _read_on(self) -> None:
        """Read what was appended to the last journal."""
        reader = self._reader
        if reader is None:
            return
        changed = False
        for batch in reader.column_batches():
            if self._takes_back(batch, reader.attempt):
                self._read(self._attempts())
                return
            self._take(reader, batch, None)
            changed = True
            self._check()
        self.version += changed
        self._stale = self._stale or (changed and self._unsaid)
        due = self._read_at + max(_REREAD, _SHARE * self._took)
        if self._stale and time.monotonic() > due:
            self._read(self._attempts())

    def _takes_back(self, batch: ColumnBatch | Batch, attempt: int) -> bool:
        """Return whether a batch holds a resume that has left rows behind."""
        if not isinstance(batch, Batch) or (attempt == 1 and not self.rows):
            return False
        return any(name == RESUME for _, name, _ in batch.events)

    def _take(
        self, reader: AttemptReader, batch: ColumnBatch | Batch, stretches: Stretches | None
    ) -> None:
        if isinstance(batch, Batch):
            self._add_events(batch, reader.attempt)
            return
        keys, count = reader.keys(batch), len(batch.times)
        if stretches and not is_system(keys):
            for begin, end in stretches.others(batch.seq, batch.seq + count):
                part = slice(begin - batch.seq, end - batch.seq)
                columns = [column[part] for column in batch.values]
                times, steps = batch.times[part], batch.steps[part]
                self._add(keys, ColumnBatch(batch.shape, begin, times, steps, columns))
        elif count:
            self._add(keys, batch)

    def _add(self, keys: tuple[str, ...], batch: ColumnBatch) -> None:
        table = self._tables.get(keys)
        if table is None:
            table = self._tables[keys] = Table()
        if math.isnan(self.begun):
            self.begun = batch.times[0]
        self._step = table.extend(batch, self._step)
        if len(table.times) == len(batch.times):  # it is new: all of it can be seen from now on
            for index, key in enumerate(keys):
                self._holders.setdefault(key, []).append((keys, index))
        self.rows += len(batch.times)
        self.bytes += 8 * len(batch.times) * (2 + len(keys))
        self.version += 1

    def _add_events(self, batch: Batch, attempt: int) -> None:
        for seq, (moment, name, data) in enumerate(batch.events, batch.seq):
            text = json.dumps(data, ensure_ascii=False, default=str)
            kept = data if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "…"
            kind = self.media if name == MEDIA else self.events
            kind.append(Event(seq, moment, attempt, name, kept))
            self.bytes += len(text)
        if len(self.events) > 2 * MOST_EVENTS:
            self.events = self.events[-MOST_EVENTS:]
        if len(self.media) > 2 * MOST_EVENTS:
            self.media = self.media[-MOST_EVENTS:]
        self.version += 1

    def _size(self, attempt: int) -> int:
        with AttemptReader(self.directory, attempt, part=self.part) as reader:
            return os.fstat(reader.fileno()).st_size

    def _check(self) -> None:
        if self._stopping():
            raise Stopped


def _carried(steps: array[float], last: float) -> Iterator[float]:
    for step in steps:
        last = last if step != step else step
        yield last


def position_of(event: Event) -> Position:
    """Return the position of an event."""
    return Position(event.attempt, event.seq)


def all_keys(series: list[RunSeries]) -> list[str]:
    """Return the names of all metrics of several runs, each once."""
    return list(dict.fromkeys(chain.from_iterable(one.keys() for one in series)))
