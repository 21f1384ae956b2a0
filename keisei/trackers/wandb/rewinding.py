"""Where in a run's history on W&B a position of its journal is, so that W&B can go back to it.

W&B numbers the rows of a run itself (`_step`), and the files that its SDK keeps of an online
attempt have these numbers. A history on W&B only grows; W&B's *rewind*, which not every server has,
cuts it behind a step and leaves the run its id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from keisei.journal.follower import has_rows
from keisei.journal.reader import RunJournal
from keisei.journal.superseding import Cuts
from keisei.trackers.base import Position
from keisei.trackers.wandb import run_file
from keisei.trackers.wandb.local_runs import attempts_in
from keisei.trackers.wandb.rows import NUMBER, is_system_row, names_of, number_in, number_of


class Holding:
    """Knows which history rows of a run an uninterrupted one would have.

    Rows `system/...` all hold. A run that goes back gets those of the time that it leaves behind
    once more: so of such a row that stands in two files, the one in the later file holds.

    Args:
        directory: the run's directory, with its journals.

    Attributes:
        cuts: what the run's resumes have left behind; nothing where that cannot be read.
    """

    def __init__(self, directory: str) -> None:
        self.cuts = Cuts()
        with suppress(OSError):
            self.cuts = RunJournal(directory).cuts()
        self._again: dict[str, frozenset[Position]] = {}
        later = frozenset[Position]()
        for attempt in reversed(attempts_in(directory)) if self.cuts else ():
            self._again[attempt.path] = later
            with suppress(OSError):
                later |= self._measured_in(attempt.path)

    def _measured_in(self, path: str) -> frozenset[Position]:
        """Return which rows `system/...` of a file are of the time that was left behind."""
        found = set()
        for record in run_file.rows_of(path):
            number = number_of(record)
            if number is not None and number in self.cuts and is_system_row(names_of(record)):
                found.add(number)
        return frozenset(found)

    def of(self, path: str) -> Callable[[Any], bool]:
        """Return what tells whether a row of a run file holds; one that is not keisei's own does.

        Args:
            path: the file.
        """
        again = self._again.get(path, frozenset())

        def holds(row: Any) -> bool:
            number = number_of(row)
            if number is None or number not in self.cuts:
                return True
            return is_system_row(names_of(row)) and number not in again

        return holds

    def superseded(self, row: Mapping[str, object]) -> Position | None:
        """Return which record a row of the server's is, if it is one that was left behind."""
        number = number_in(row)
        if number is None or number not in self.cuts or is_system_row(row):
            return None
        return number


_BEGIN = Position(0, -1)


def step_at(directory: str, after: Position, cuts: Cuts) -> int | None:
    """Return the step of the last row on W&B that still holds after going back to a position.

    Args:
        directory: the run's directory.
        after: the position.
        cuts: what the run's resumes have left behind.

    Returns:
        -1 where no row is before the position; ``None`` where it cannot be told: a file has gone,
        or the row was kept offline, and W&B has numbered it later.

    Raises:
        OSError: a file cannot be read.
    """
    for attempt in reversed(attempts_in(directory)):
        for payload in run_file.last_payloads(attempt.path, NUMBER.encode()):
            record = run_file.parsed(payload)
            number = number_of(record)
            if number is None or number > after:
                continue
            if number not in cuts or is_system_row(names_of(record)):
                whole = attempt.online and not has_rows(directory, number, after, cuts)
                return int(record.history.step.num) if whole else None
    return None if has_rows(directory, _BEGIN, after, cuts) else -1
