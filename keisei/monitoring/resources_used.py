"""Reads from the journals of a run what it has used of its machines, also where it has died."""

from __future__ import annotations

from typing import Any

from keisei.journal.reader import read_run
from keisei.monitoring.resources import EVENT, folded


def read_resources_used(directory: str) -> dict[str, Any] | None:
    """Return what a run has used, over all its attempts and ranks.

    Args:
        directory: the run's directory.

    Returns:
        Seconds, samples, nodes, GPUs, energy, peaks and means, as `folded` makes them; ``None``
        where nothing was measured.

    Raises:
        OSError: a journal cannot be read.
    """
    run = read_run(directory)
    told: list[tuple[int, str, object]] = []
    for part in (None, *run.parts()):
        journal = run.of(part)
        for attempt in journal.attempts():
            with journal.open(attempt) as reader:
                told += [(attempt, part or "", data) for _, _, data in reader.events_named(EVENT)]
    return folded(sorted(told, key=lambda one: one[:2]))
