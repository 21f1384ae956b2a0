"""Follows the records of a run from a position on, in order, while they are being written."""

from __future__ import annotations

from collections.abc import Iterator

from keisei.journal.decoding import Batch
from keisei.journal.reader import AttemptReader, Event, Position, Row, RunJournal
from keisei.journal.records import is_system
from keisei.journal.superseding import NOTHING, Cuts


class Follower:
    """Follows a run's journals, attempt by attempt, each record once.

    Args:
        directory: the run's directory.
        after: the position to begin behind.
        last: the attempt whose journal may still grow; those before it have ended.
        cuts: rows to leave out: what a resume of the run has left behind; never `system/...`.
        part: the part whose journals are followed; ``None`` for the owner's own.

    Attributes:
        skipped: how many rows of earlier attempts than the last were left out.
    """

    def __init__(
        self,
        directory: str,
        after: Position,
        last: int,
        cuts: Cuts | None = None,
        part: str | None = None,
    ) -> None:
        self._journals = RunJournal(directory, part)
        self._after, self._last = after, last
        self._reader: AttemptReader | None = None
        self._batches: Iterator[Batch] = iter(())
        self._pending: list[Row | Event] = []
        self._cuts = Cuts() if cuts is None else cuts
        self._stretches = NOTHING
        self.skipped = 0

    def read(self, most: int) -> list[Row | Event]:
        """Return the next records that there are by now; none where there are no more.

        Args:
            most: how many at most.

        Raises:
            OSError: a journal cannot be read.
        """
        while len(self._pending) < most:
            batch = next(self._batches, None)
            if batch is not None:
                self._pending += self._records(batch)
            elif not self._next_journal():
                break
        found, self._pending = self._pending[:most], self._pending[most:]
        return found

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader, self._batches = None, iter(())

    def _records(self, batch: Batch) -> Iterator[Row | Event]:
        assert self._reader is not None
        attempt, keys = self._reader.attempt, self._reader.keys(batch)
        begin = self._after.seq + 1 - batch.seq if attempt == self._after.attempt else 0
        begin = max(0, begin)
        for seq, event in enumerate(batch.events[begin:], batch.seq + begin):
            yield Event(seq, event[0], attempt, event[1], event[2])
        stretches = NOTHING if is_system(keys) else self._stretches
        for seq, raw in enumerate(batch.rows[begin:], batch.seq + begin):
            if stretches and seq in stretches:
                self.skipped += attempt != self._last
                continue
            yield Row(seq, raw[0], raw[-1], attempt, dict(zip(keys, raw[1:-1])))  # type: ignore[arg-type]  # noqa: B905

    def _next_journal(self) -> bool:
        """Go on with what was added, or with the next journal; return whether there is more."""
        known = self._after.attempt if self._reader is None else self._reader.attempt
        if self._reader is not None:
            before = self._reader.position
            self._batches = self._reader.batches()
            batch = next(self._batches, None)
            if batch is not None:
                self._pending += self._records(batch)
                return True
            if self._reader.position != before:
                return True
            known += 1
        later = [n for n in self._journals.attempts() if known <= n <= self._last]
        if not later:
            return False
        self.close()
        start = self._after.seq + 1 if later[0] == self._after.attempt else 0
        directory, part = self._journals.directory, self._journals.part
        self._reader = AttemptReader(directory, later[0], start, part=part)
        self._stretches = self._cuts.of(later[0])
        self._batches = self._reader.batches()
        return True


def count_after(directory: str, after: Position, last: int, part: str | None = None) -> int:
    """Count the records of a run behind a position, reading little more than how many there are.

    Args:
        directory: the run's directory.
        after: the position.
        last: the last attempt to count.
        part: the part whose journals are meant; ``None`` for the owner's own.

    Raises:
        OSError: a journal cannot be read.
    """
    total = 0
    for attempt in RunJournal(directory, part).attempts():
        if after.attempt <= attempt <= last:
            with AttemptReader(directory, attempt, part=part) as reader:
                start = after.seq + 1 if attempt == after.attempt else 0
                total += sum(
                    max(0, seq + count - max(seq, start)) for seq, count in reader.counts()
                )
    return total


def has_rows(
    directory: str,
    after: Position,
    last: Position,
    cuts: Cuts | None = None,
    part: str | None = None,
    *,
    system: bool = True,
) -> bool:
    """Return whether any row stands behind a position, and not behind another one.

    Args:
        directory: the run's directory.
        after: the position.
        last: the other one.
        cuts: rows that do not count: what a resume of the run has left behind.
        part: the part whose journals are meant; ``None`` for the owner's own.
        system: whether rows `system/...` count.

    Raises:
        OSError: a journal cannot be read.
    """
    follower = Follower(directory, after, last.attempt, cuts, part)
    try:
        while records := follower.read(256):
            for record in records:
                if (record.attempt, record.seq) > last:
                    return False
                if isinstance(record, Row) and (system or not is_system(record.values)):
                    return True
        return False
    finally:
        follower.close()
