"""What has held a run's event loops, read from its journals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from keisei.journal.reader import RunJournal, read_run
from keisei.monitoring.lag_table import LAG, STALL, folded


def read_lag_used(directory: str) -> dict[str, Any] | None:
    """Return what has held the loops of a run, of all its attempts and parts.

    Args:
        directory: the run's directory, which may be another host's.

    Returns:
        The table; ``None`` where nothing is known.

    Raises:
        OSError: the directory cannot be read.
    """
    run = read_run(directory)
    return folded(
        _events(journal, attempt)
        for journal in (run, *map(run.of, run.parts()))
        for attempt in journal.attempts()
    )


def _events(journal: RunJournal, attempt: int) -> Iterator[tuple[str, object]]:
    with suppress(FileNotFoundError), journal.open(attempt) as reader:
        for _, _, name, data in reader.events_of((LAG, STALL)):
            yield name, data
