"""Reads from the journals of a run what its time was used for, also where it has died."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

from keisei.journal.attempt import AttemptReader
from keisei.journal.reader import RunJournal, read_run
from keisei.journal.superseding import RESUME
from keisei.monitoring.goodput import Behind, Life, throughput, time_used, together
from keisei.monitoring.phases import EVENT
from keisei.run.part_file import rank_of

_NEAR = 1 << 16  # bytes at the end of a journal, in which its last records are


def read_time_used(directory: str) -> dict[str, Any] | None:
    """Return what the time of a run was used for, over all attempts, and how fast it is.

    Args:
        directory: the run's directory.

    Returns:
        The seconds and the shares of all phases of the owner and its ranks together, the goodput,
        the throughput of the owner's rows, and `parts`: the same of each rank and member by
        itself. ``None`` where no attempt has said anything of its time.

    Raises:
        OSError: a journal cannot be read.
    """
    run = read_run(directory)
    lives: dict[str | None, list[Life]] = {}
    is_resumed = False
    for part in (None, *run.parts()):
        lives[part], resumes = _lives(run.of(part))
        is_resumed = is_resumed or resumes
    if not any(life.said for each in lives.values() for life in each):
        return None
    used = {
        part: time_used(each, _left(run.of(part)) if is_resumed else [])
        for part, each in lives.items()
        if each
    }
    ranks = [each for part, each in used.items() if part is None or rank_of(part) is not None]
    return {
        **together(ranks).as_data(),
        "throughput": throughput(lives[None]),
        "parts": {part: each.as_data() for part, each in used.items() if part is not None},
    }


def _lives(journal: RunJournal) -> tuple[list[Life], bool]:
    """Return the lives of all attempts, and whether any of them has resumed."""
    found: list[Life] = []
    is_resumed = False
    for attempt in journal.attempts():
        told = []
        with journal.open(attempt) as reader:
            for _, time, name, said in reader.events_of((EVENT, RESUME)):
                if name == RESUME:
                    is_resumed = True
                elif isinstance(said, dict) and isinstance(said.get("started_at"), float):
                    told.append((time, said))
        first, last = _first_time(journal, attempt), _last_time(journal, attempt)
        if first is None or last is None:
            continue
        # A member's part can be taken up again by another process, in the same attempt.
        starts = sorted({said["started_at"] for _, said in told}) or [first]
        for started, next_start in zip(starts, [*starts[1:], math.inf], strict=True):
            own = [(time, said) for time, said in told if said["started_at"] == started]
            seen = last if next_start == math.inf else own[-1][0]
            found.append(Life(attempt, min(started, seen), seen, own))
    return found, is_resumed


def _first_time(journal: RunJournal, attempt: int) -> float | None:
    with journal.open(attempt) as reader:
        return next(_times(reader), None)


def _last_time(journal: RunJournal, attempt: int) -> float | None:
    with journal.open(attempt) as reader:
        reader.seek_back(_NEAR)
        # The last one, and not the latest: the clock may have been set back since.
        return next(iter(deque(_times(reader), maxlen=1)), None)


def _times(reader: AttemptReader) -> Iterator[float]:
    """Yield when the records were logged."""
    for batch in reader.batches():
        for record in batch.rows or batch.events:
            yield float(record[0])  # type: ignore[arg-type]


def _left(journal: RunJournal) -> list[Behind]:
    """Return what the resumes have left behind, by its time."""
    cuts, found = journal.cuts(), []
    for attempt in journal.attempts() if cuts else []:
        for first, behind in cuts.of(attempt):
            begin, end = (_time_at(journal, attempt, seq) for seq in (first, behind))
            found.append(Behind(attempt, begin if first else 0.0, end))
    return found


def _time_at(journal: RunJournal, attempt: int, seq: int) -> float:
    """Return when a record was logged, or the next one that there is; infinite where none is."""
    with AttemptReader(journal.directory, attempt, seq, journal.part) as reader:
        for batch in reader.batches():
            for number, record in enumerate(batch.rows or batch.events, batch.seq):
                if number >= seq:
                    return float(record[0])  # type: ignore[arg-type]
    return math.inf
