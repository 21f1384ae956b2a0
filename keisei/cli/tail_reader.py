"""Read the ends of a run's journals, then what is appended to them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from keisei.cli.metric_names import select
from keisei.journal.format import file_name
from keisei.journal.reader import AttemptReader, Value, read_run
from keisei.journal.records import is_system
from keisei.journal.superseding import Cuts, Stretches
from keisei.run.log_tail import LogTail, is_current

__all__ = ["LogTail", "RowsTail", "ShownRow"]

_NEAR, _FAR = 1 << 16, 1 << 26  # bytes at a file's end in which the last rows are searched


class ShownRow(NamedTuple):
    """A row, with those of its metrics that are wanted.

    Attributes:
        attempt: the attempt that logged it.
        seq: its number there.
        time: when it was logged, in seconds since the epoch.
        step: its training step, if it has one.
        values: the numbers by name.
    """

    attempt: int
    seq: int
    time: float
    step: int | None
    values: dict[str, Value]


class RowsTail:
    """Reads the rows of a run: the last ones, then new ones, one attempt after the other.

    Args:
        directory: the run's directory.
        wanted: the metrics, by name or pattern; all where empty. Rows without any of them are
            left out.
        part: the part of the run whose rows they are; ``None`` for the owner's own.
        system: whether the rows `system/...` are wanted where no metric is named.

    Attributes:
        keys: the names of all metrics seen so far.
    """

    def __init__(
        self,
        directory: str,
        wanted: Sequence[str] = (),
        part: str | None = None,
        *,
        system: bool = False,
    ) -> None:
        self._system = system
        self.keys: set[str] = set()
        self._journals = read_run(directory).of(part)
        self._wanted = wanted
        self._reader: AttemptReader | None = None
        self._selected: dict[tuple[str, ...], list[int]] = {}

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def last(self, count: int) -> list[ShownRow]:
        """Return the last rows, reading only the ends of the journals; `new` goes on from there.

        Of earlier attempts, what the run has left behind by resuming is left out.

        Args:
            count: how many.
        """
        found: list[ShownRow] = []
        cuts: Cuts | None = None
        for attempt in reversed(self._journals.attempts()):
            reader = self._journals.open(attempt)
            try:
                if self._reader is not None and cuts is None:
                    cuts = self._journals.cuts()
                cut = Stretches(()) if cuts is None else cuts.of(attempt)
                found = [*self._last_of(reader, count - len(found), cut), *found]
            finally:
                if self._reader is None:
                    self._reader = reader
                else:
                    reader.close()
            if len(found) >= count:
                break
        return found

    def all_keys(self) -> set[str]:
        """Return the names of all metrics, from all journals."""
        for attempt in self._journals.attempts():
            with self._journals.open(attempt) as reader:
                self.keys.update(*reader.shapes())
        return self.keys

    def new(self) -> Iterator[ShownRow]:
        """Yield the rows that have come since."""
        attempts, done = self._journals.attempts(), 0
        if self._reader is not None:
            yield from self._rows(self._reader)
            name = file_name(self._reader.attempt, self._journals.part)
            path = os.path.join(self._journals.directory, name)
            done = self._reader.attempt if is_current(self._reader.fileno(), path) else 0
        for attempt in attempts:
            if attempt > done:
                with suppress(FileNotFoundError):
                    reader = self._journals.open(attempt)
                    self.close()
                    self._reader = reader
                    yield from self._rows(reader)

    def _last_of(self, reader: AttemptReader, count: int, cut: Stretches) -> list[ShownRow]:
        size, rows = _NEAR, deque[ShownRow](maxlen=count)
        while True:
            whole = reader.seek_back(size)
            rows.clear()
            rows.extend(r for r in self._rows(reader) if r.seq not in cut or is_system(r.values))
            if len(rows) >= count or whole or (self._wanted and size >= _FAR):
                return list(rows)
            size *= 4

    def _rows(self, reader: AttemptReader) -> Iterator[ShownRow]:
        for seq, keys, raw in reader.rows():
            selected = self._selected.get(keys)
            if selected is None:
                is_left_out = is_system(keys) and not (self._system or self._wanted)
                selected = [] if is_left_out else select(self._wanted, keys)
                self._selected[keys] = selected
                self.keys.update(keys)
            if selected or not (self._wanted or keys):
                values = {keys[index]: raw[index + 1] for index in selected}
                yield ShownRow(reader.attempt, seq, raw[0], raw[-1], values)  # type: ignore[arg-type]
