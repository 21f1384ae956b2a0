"""The list of runs: read once, and then only what has changed."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from keisei.errors import KeiseiError, quoted
from keisei.journal.follower import Follower
from keisei.journal.reader import RunJournal
from keisei.journal.records import Event, Position
from keisei.journal.superseding import RESUME
from keisei.run import find, labels
from keisei.run.find import FoundRun
from keisei.run.labels import Labels
from keisei.run.layout import CONFIG_FILE, LABELS_FILE, RECORD_FILE
from keisei.run.status import FINAL
from keisei.store import columns, directories
from keisei.store.copies import original_of
from keisei.store.matching import matches
from keisei.store.opening import Opened
from keisei.store.query import parse
from keisei.store.rows import Lazily, MetricSummary, RunRow
from keisei.store.summaries import Summaries

_FILES = (RECORD_FILE, LABELS_FILE, CONFIG_FILE)
_BATCH = 4096  # records
_REREAD = 10.0  # seconds: how often all of a run is read again at most
_SHARE = 20  # what takes long to read again is read so much more rarely
_FRESH = 0.5  # seconds: how old what several readers share may be

_Version = tuple[object, ...]


class Listing:
    """The runs under a root, or those that a registry knows; thread-safe, and it blocks.

    Args:
        root: the absolute path of the directory under which runs live.
        opened: the registry, where one is asked.
    """

    def __init__(self, root: str, opened: Opened | None = None) -> None:
        self.root, self._opened = root, opened
        self._guard = threading.Lock()
        self._rows: dict[str, tuple[_Version, RunRow]] = {}
        self._live: dict[str, _LiveMetrics] = {}
        self._all: list[RunRow] = []
        self._read_at = 0.0

    @property
    def shown(self) -> str:
        """Where the runs are, as people may see it."""
        return self.root if self._opened is None else self._opened.database().shown

    def find(
        self, query: str, order_by: str, limit: int
    ) -> tuple[list[RunRow], dict[str, int], int]:
        """Return the first runs that fit a query, how many fit it by status, and how many in all.

        Args:
            query: the query, as `keisei ls` takes it.
            order_by: the column to sort by, with `-` before it the largest first.
            limit: the most runs.

        Raises:
            QueryError: the query or the column is none.
            OSError: the root cannot be read.
        """
        if self._opened is not None:
            found = self._opened.find(query, order_by, limit, 0)
            counts = self._opened.statuses(query)
        else:
            node = parse(query, time.time())
            columns.check_column(order_by.removeprefix("-"))
            fit = [row for row in self._current() if matches(node, row)]
            counts = Counter(row.status for row in fit)
            found = columns.ordered(fit, order_by)[:limit]
        return found, dict(counts.most_common()), counts.total()

    def one(self, name: str) -> FoundRun:
        """Return one run by its name.

        Raises:
            FileNotFoundError: there is none, or its directory cannot be seen from here.
        """
        path = os.path.join(self.root, name)
        if self._opened is not None:
            row = self._opened.known(name)
            path = "" if row is None else row.directory
        elif name in ("", ".", "..") or os.sep in name or "\0" in name:
            path = ""
        found = find.find_at(path) if path else None
        if found is None:
            where = self.shown if self._opened is None else path or self.shown
            raise FileNotFoundError(f"there is no run {quoted(name)} in {quoted(where, 300)}")
        return found

    def row(self, name: str) -> RunRow:
        """Return the row of one run, as its directory is now."""
        return self._row(self.one(name))

    def change(self, name: str, change: Callable[[Labels], Labels]) -> Labels:
        """Change a run's tags and note.

        Args:
            name: the run's name.
            change: returns the new labels for those that are there.

        Raises:
            FileNotFoundError: there is no such run.
            OSError: they cannot be written.
            ValueError: they are not allowed.
        """
        found = self.one(name)
        now = labels.change_labels(found.directory, change)
        self._read_at = 0.0
        if self._opened is not None:
            with suppress(KeiseiError):  # the directory is the truth, and the registry follows it
                if original_of(self._opened, found) is None:
                    self._opened.write([directories.row_of(found)])
        return now

    def close(self) -> None:
        """Close the registry's connections."""
        if self._opened is not None:
            self._opened.close()

    def _current(self) -> list[RunRow]:
        with self._guard:
            if time.monotonic() - self._read_at < _FRESH:
                return self._all
            try:
                with os.scandir(self.root) as entries:
                    paths = [e.path for e in entries if e.is_dir(follow_symlinks=False)]
            except OSError as exc:
                raise OSError(
                    f"{quoted(self.root, 300)} cannot be listed: {find.reason(exc)}"
                ) from exc
            known, self._rows = self._rows, {}
            rows = []
            for path in sorted(paths):
                version = _version(path)
                kept = known.get(path)
                if kept is None or kept[0] != version or kept[1].status not in FINAL:
                    found = find.find_at(path)
                    if found is None:
                        continue
                    kept = version, self._row(found)
                self._rows[path] = kept
                rows.append(kept[1])
            self._live = {path: one for path, one in self._live.items() if path in self._rows}
            self._all, self._read_at = rows, time.monotonic()
            return rows

    def _row(self, run: FoundRun) -> RunRow:
        row = directories.row_of(run)
        if run.live_owner is None or run.record is None:
            return row
        live = self._live.setdefault(run.directory, _LiveMetrics(run.directory))
        return replace(row, metrics=Lazily(partial(live.read, run.record.attempt, row.config)))


class _LiveMetrics:
    """What the metrics of a live run have come to: only what was added is read.

    Where an attempt has logged rows without having said where it goes on, each of them may hide an
    earlier one of the same step. Then all is read again, now and then.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._guard = threading.Lock()
        self._attempt = 0
        self._follower: Follower | None = None
        self._summaries = Summaries()
        self._unsaid = False
        self._again: Mapping[str, MetricSummary] = {}
        self._due = 0.0

    def read(self, attempt: int, config: Mapping[str, object]) -> Mapping[str, MetricSummary]:
        with self._guard, suppress(OSError):
            if self._follower is None or attempt != self._attempt or not self._go_on():
                self._begin(attempt)
                self._go_on()
            if self._unsaid:
                started = time.monotonic()
                if started >= self._due:
                    self._again = directories.metrics_of(self._directory, config)
                    took = time.monotonic() - started
                    self._due = started + took + max(_REREAD, _SHARE * took)
                return self._again
        return self._summaries.metrics(directories.best_in(config))

    def _begin(self, attempt: int) -> None:
        if self._follower is not None:
            self._follower.close()
        self._attempt, self._summaries = attempt, Summaries()
        self._unsaid, self._due = False, 0.0
        cuts = RunJournal(self._directory).cuts(attempt)
        self._follower = Follower(self._directory, Position(1, -1), attempt, cuts)
        self._known = cuts.known

    def _go_on(self) -> bool:
        """Read on; return whether nothing has left rows behind."""
        assert self._follower is not None
        while records := self._follower.read(_BATCH):
            for record in records:
                if not isinstance(record, Event):
                    self._unsaid |= record.attempt > max(1, self._known.attempt)
                    self._summaries.add(record.values, record.values.values(), record.step)
                elif record.name == RESUME and (record.attempt, record.seq) > self._known:
                    return False
        return True


def _version(path: str) -> _Version:
    found: list[object] = []
    for name in _FILES:
        try:
            info = os.stat(os.path.join(path, name), follow_symlinks=False)
        except OSError:
            found.append(None)
        else:
            found.append((info.st_ino, info.st_mtime_ns, info.st_size))
    return tuple(found)
