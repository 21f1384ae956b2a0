"""What of a run a tracker has still to get, and what of it it has to let go.

A run that is resumed from a checkpoint has left behind what it had logged after that. Rows that the
tracker has not got by then are left out. Of those that it has got, it is told with the resume: the
tracker goes back first, and then on from where it stands.

Rows `system/...` are no reason to go back, for no resume supersedes them. A tracker that does go
back gets those behind that position once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from keisei._io.held import FollowedDirectory
from keisei.journal.follower import Follower, count_after, has_rows
from keisei.journal.reader import RunJournal
from keisei.journal.records import is_system
from keisei.journal.superseding import RESUME, Cuts
from keisei.trackers.answers import rewound
from keisei.trackers.base import Event, Position, Record, Row, TrackerRun
from keisei.trackers.cursor import NOWHERE


class Backlog:
    """The records of a run behind a position, as they are and as they come.

    Args:
        home: the run's directory, wherever it is moved.
        attempt: the attempt that is the last one.
        part: the part of the run whose records these are; ``None`` for the owner's own.
        tracks_system: whether the tracker is to get rows `system/...`.

    Attributes:
        position: the last record that the tracker has got.
        earlier: how many records of earlier attempts come after it.
        told: the last resume that the tracker has been told of.
        tracks_system: whether the tracker gets rows `system/...`.
    """

    def __init__(
        self,
        home: FollowedDirectory,
        attempt: int,
        part: str | None = None,
        *,
        tracks_system: bool = False,
    ) -> None:
        self.tracks_system = tracks_system
        self.position, self.told = NOWHERE, NOWHERE
        self.earlier = 0
        self._home, self._attempt, self._part = home, attempt, part
        self._follower: Follower | None = None
        self._skipped = 0
        self._cuts: Cuts | None = None
        self._last_row = NOWHERE  # a training's, that was sent since the backlog was made
        self._seen = NOWHERE  # the last resume that was read
        self._unknown = NOWHERE  # up to where it is not known what was sent

    def move(self, position: Position) -> None:
        """Go on behind another position.

        Raises:
            OSError: a journal cannot be read.
        """
        self.earlier = count_after(self._home.path(), position, self._attempt - 1, self._part)
        self.position = self._unknown = position
        self._last_row = NOWHERE
        self.close()

    def read(self, most: int) -> list[Record]:
        """Return the next records that there are by now, without rows that were left behind.

        Args:
            most: how many at most.

        Raises:
            OSError: a journal cannot be read.
        """
        if self._follower is None:
            if self._cuts is None:
                self._cuts = RunJournal(self._home.path(), self._part).cuts(self._attempt)
            self._follower = Follower(
                self._home.path(), self.position, self._attempt, self._cuts, self._part
            )
            self._skipped = 0
        return [*self._follower.read(most)]

    @property
    def directory(self) -> str:
        """The run's directory, where it is now."""
        return self._home.path()

    @property
    def left_behind(self) -> Cuts:
        """What the run's resumes have left behind, as far as it was read."""
        return Cuts() if self._cuts is None else self._cuts

    @property
    def opened(self) -> bool:
        """Whether it has begun to read behind its position."""
        return self._follower is not None

    def close(self) -> None:
        """Close the journal's file; the next `read` goes on behind `position`."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    def passed(self, records: Sequence[Record]) -> None:
        """Note that the tracker has got these records."""
        skipped = 0 if self._follower is None else self._follower.skipped
        self.earlier -= skipped - self._skipped
        self._skipped = skipped
        if records[0].attempt != self._attempt:
            self.earlier -= sum(record.attempt != self._attempt for record in records)
        for record in reversed(records):
            if isinstance(record, Row) and not is_system(record.values):
                self._last_row = Position(record.attempt, record.seq)
                break
        self.position = Position(records[-1].attempt, records[-1].seq)

    def resumes(self, records: Sequence[Record]) -> bool:
        """Return whether there is a resume among records that the tracker was not told of."""
        for one in records:
            if isinstance(one, Event) and one.name == RESUME:
                self._seen = max(self._seen, Position(one.attempt, one.seq))
        return self._seen > self.told

    def go_back(self, run: TrackerRun) -> bool | None:
        """Ask the tracker to drop what the run has left behind; what is read then is without it.

        Args:
            run: the tracker's run; what it raises is raised.

        Returns:
            Whether that is dropped; ``None`` where the tracker has got none of it.

        Raises:
            OSError: a journal cannot be read.
        """
        self.close()
        cuts = self._cuts = RunJournal(self._home.path(), self._part).cuts(self._attempt)
        after, dropped = cuts.fork(self.told), None
        where, until = self._home.path(), self._unknown
        if after is not None and (
            self._last_row > after or has_rows(where, after, until, part=self._part, system=False)
        ):
            dropped = rewound(run, after)
            if dropped:
                self.move(after)
        self.told = max(cuts.known, self._seen)
        return dropped

    def left(self) -> int:
        """Return how many records the tracker has not got; 0 where that cannot be read."""
        with suppress(OSError):
            return count_after(self._home.path(), self.position, self._attempt, self._part)
        return 0
