"""The events of a run that its accounts need, read from all its journals, and followed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from keisei.journal.attempt import AttemptReader
from keisei.journal.format import part_of
from keisei.monitoring.ledger import NAMES, Accounts, Ledger

Journal = tuple[int, str | None]


class Found(NamedTuple):
    """An event that was found.

    Attributes:
        attempt: the attempt that has logged it.
        part: the part of the run that has; ``None`` for the owner's own.
        seq: its number among the rows and events of its journal.
        name: what kind of event it is.
        data: what it says.
    """

    attempt: int
    part: str | None
    seq: int
    name: str
    data: object


class RunEvents:
    """Reads events of some names from the journals of all attempts and parts of a run.

    Args:
        directory: the run's directory.
        names: the events' names.
    """

    def __init__(self, directory: str, names: Sequence[str]) -> None:
        self._directory, self._names = directory, names
        self._readers: dict[Journal, AttemptReader] = {}
        self._closed: set[Journal] = set()

    def read(self) -> Iterator[Found]:
        """Yield the events that have come since the last call; it blocks.

        A journal that cannot be read is left out.
        """
        found = {known for name in _listed(self._directory) if (known := part_of(name))}
        for attempt, part in sorted(found - self._closed, key=lambda one: (one[0], one[1] or "")):
            with suppress(OSError):
                reader = self._readers.get((attempt, part))
                if reader is None:
                    reader = AttemptReader(self._directory, attempt, part=part)
                    self._readers[attempt, part] = reader
                for seq, _, name, data in reader.events_of(self._names):
                    yield Found(attempt, part, seq, name, data)

    def last_sign(self, attempt: int, part: str | None) -> float | None:
        """Return when the last record of a journal was logged, in seconds since the epoch."""
        try:
            with AttemptReader(self._directory, attempt, part=part) as reader:
                return reader.last_time()
        except OSError:
            return None

    def close(self, *, but: int | None = None) -> None:
        """Close the journals, which are not read any more.

        Args:
            but: an attempt whose journals stay open; those of the others do not grow.
        """
        for key in [key for key in self._readers if key[0] != but]:
            self._readers.pop(key).close()
            self._closed.add(key)


def ledger_of(directory: str) -> Ledger:
    """Return the ledger of a run, from its journals alone; it blocks.

    It is empty where the journals are not here: the directory may be another host's.

    Args:
        directory: the run's directory.
    """
    events, accounts = RunEvents(directory, NAMES), Accounts()
    try:
        for event in events.read():
            accounts.take(event.attempt, event.part, event.name, event.data)
        return accounts.ledger(events.last_sign)
    finally:
        events.close()


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
