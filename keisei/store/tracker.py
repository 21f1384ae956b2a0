"""The registry as a tracker: it follows the journals of runs, in its own host process.

So the training never waits for the database, an outage loses nothing, what was missed follows with
the next session or `keisei sync`, and the true end is there although the program was killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from keisei.errors import RegistryError, TrackerError, quoted
from keisei.journal.records import Event, Row, is_system
from keisei.journal.superseding import RESUME
from keisei.monitoring.ledger import NAMES
from keisei.run import find
from keisei.run.layout import PARTS
from keisei.run.status import FinalStatus
from keisei.store.copies import original_of
from keisei.store.directories import best_in, cost_in, row_of
from keisei.store.opening import Opened, url_of
from keisei.store.rows import RunRow
from keisei.store.summaries import Summaries
from keisei.trackers.base import Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.worker import BATCH

NAME = "registry"
FINISH_TIMEOUT = 2.0  # seconds that a session's end waits for its last row
PAUSE = 0.25  # seconds between two writes of one run, which its end may have to wait for
_EXIT = 1.0  # seconds that the end of a killed process may take
_SHARE = 10  # a row that takes long to make is made so much more rarely


class RegistryTracker(Tracker):
    """Keeps a registry's rows of runs up to date.

    Args:
        url: the registry's; without it, `KEISEI_REGISTRY_URL`.

    Raises:
        TrackerError: neither names one.

    Attributes:
        quiet: whether a failed start is no warning: one is enough for an outage, and comes from
            whoever keeps the leases, or with the end.
    """

    name = NAME
    quiet = True

    def __init__(self, url: str | None = None) -> None:
        try:
            self._url = url_of(url)
        except RegistryError as exc:
            raise TrackerError(str(exc)) from None

    def start(self, run: RunInfo) -> TrackerRun:
        """Write the run's row; one that cannot be written is tried again.

        Raises:
            TrackerError: the run's directory is a copy, and another one has the row.
            MissingExtraError: SQLAlchemy, or the driver, is not installed.
            RegistryError: the database is away.
        """
        self._check(run)
        followed = _FollowedRun(self._url, run)
        followed.write(anew=True)
        return followed

    def _check(self, run: RunInfo) -> None:
        found = find.find_at(run.directory)
        opened = Opened(self._url)
        try:
            first = None if found is None else original_of(opened, found)
        finally:
            opened.close()  # a server has few connections, and a run takes long
        if first is not None:
            self.quiet = False
            raise TrackerError(
                f"{quoted(run.directory, 300)} is a copy of {quoted(first, 300)}, which has the "
                "run's row in the registry. To go on from a copy, start another run, which can "
                "restore the copy's checkpoints by their paths"
            )


class _FollowedRun(TrackerRun):
    """A run whose row is kept up to date.

    The metrics of a first attempt are summed up as they come. Where a resume may supersede what
    stands in the journals, or not all of them have come here, they are read from the journals anew.
    """

    def __init__(self, url: str, run: RunInfo) -> None:
        self.run_id = run.session_id
        self._url, self._directory, self._attempt = url, run.directory, run.attempt
        self._summaries = Summaries() if run.attempt == 1 else None
        self._next_seq = 0
        self._cost: Mapping[str, object] = {}  # as the run's owner knows it
        self._has_cost = run.attempt > 1
        self._is_over = False
        self._due = 0.0

    def send(self, records: Sequence[Record]) -> None:
        """Sum up rows, and write what they have come to once in a while."""
        for record in records:
            if isinstance(record, Event) and record.name in NAMES:
                self._has_cost = True
                self._cost = cost_in(record.data) or self._cost
            if self._summaries is not None:
                self._sum(record, self._summaries)
        if len(records) < BATCH:  # what comes next comes slowly: no row is left unwritten for long
            time.sleep(max(0.0, self._due - time.monotonic()))
        if time.monotonic() >= self._due:
            self.write()

    def finish(self, status: FinalStatus) -> None:
        """Write the run as its directory says that it has ended."""
        del status  # the directory is the truth
        deadline = time.monotonic() + _EXIT
        # A program that is killed closes its pipes an instant before its process is gone.
        while (found := find.find_at(self._directory)) and found.state == "running":
            if time.monotonic() > deadline:
                break
            time.sleep(_EXIT / 50)
        self._is_over = True
        self.write()

    def write(self, *, anew: bool = False) -> None:
        """Write the run's row as it is now.

        Args:
            anew: whether its metrics are read from the journals, which may have a backlog.
        """
        began, read_at = time.monotonic(), time.time()
        row = self._row(self._summaries if self._next_seq and not anew else None)
        if row is not None:
            from keisei.store.tables import Entry
            from keisei.store.writing import writer_for

            writer_for(self._url).write(Entry(row, read_at))
        ended = time.monotonic()
        share = 0.0 if self._summaries is not None else _SHARE * (ended - began)
        self._due = ended + max(PAUSE, share)

    def _row(self, summaries: Summaries | None) -> RunRow | None:
        found = find.find_at(self._directory)
        if found is None:  # removed, or moved to the trash
            return None
        row = row_of(found)
        if (row.attempt or 0) > self._attempt:  # the row is the later attempt's to write
            return None
        if not (self._is_over or self._attempt > 1):
            row = replace(row, cost=self._cost)
        elif not self._has_cost and not os.path.lexists(os.path.join(self._directory, PARTS)):
            row = replace(row, cost={})  # its journals need not be read
        if summaries is None:
            return row
        return replace(row, metrics=summaries.metrics(best_in(row.config)))

    def _sum(self, record: Record, summaries: Summaries) -> None:
        if record.seq < self._next_seq:
            return  # sent again after an error
        if (self._next_seq == 0 and record.seq > 0) or record.attempt > 1:
            self._summaries = None  # the worker goes on from where another one had got
            return
        self._next_seq = record.seq + 1
        if isinstance(record, Row):
            if is_system(tuple(record.values)):
                return
            summaries.add(record.values, record.values.values(), record.step)
        elif record.name == RESUME:
            self._summaries = None
