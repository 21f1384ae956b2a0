"""What a tracker is: two small protocols, and what it is told of a run.

A tracker's methods block. keisei calls them one after the other on a daemon thread of the run's
worker, for a named tracker in a process of its own: it may hang, raise or crawl without harm to
the training or to another tracker. A new tracker is a file here (or in a package of its own) and a
line in the entry-point group `keisei.trackers`. `keisei.testing.check_tracker` checks whether it
keeps to what is said here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from keisei.journal.records import Event, Media, Position, Row
from keisei.run.status import FinalStatus

__all__ = ["Event", "Media", "Position", "Record", "Row", "RunInfo", "Tracker", "TrackerRun"]

Record = Row | Event | Media


@dataclass(frozen=True)
class RunInfo:
    """What a tracker is told of the run: plain and picklable.

    Attributes:
        session_id: the run's id, the same for all its attempts.
        run_name: its name.
        attempt: 1 for the first start, 2 for the first resumption.
        directory: its directory, an absolute path.
        config_text: its effective config as JSON, secrets hidden.
        working_directory: the program's, when it asked for the tracker: where relative paths begin.
        part: the part of the run whose rows these are, as `rank3`; ``None`` for the owner's own.
        shared: whether the parts of the run send their rows to the tracker by themselves.
    """

    session_id: str
    run_name: str
    attempt: int
    directory: str
    config_text: str
    working_directory: str = ""
    part: str | None = None
    shared: bool = False


class TrackerRun(Protocol):
    """A run that a tracker has started. Derive from it for the defaults, or have all members.

    Attributes:
        run_id: the id that the tracker knows the run by.
        url: where people look at the run, if anywhere.
        mode: whether the tracker sends what it gets, or keeps it to be sent later.
        directory: where the tracker keeps the run's files, if anywhere.
        upload_as: the id to upload the run under, where ``run_id`` is a substitute for it.
        options: what `keisei sync` has to make the tracker with to find this very run, beside what
            it was made with: what it took from the environment or by default, and absolute paths.
        media: the kinds of media that it shows (`image`, `figure`, `video`, `audio`, `histogram`,
            `table`, `text`, `file`): those come to `send` as `Media`, in their place among the
            rows. Of other kinds it gets nothing, and that is counted.
        media_left_out: how many media it was sent and could not show.
    """

    run_id: str
    url: str | None = None
    mode: Literal["online", "offline"] = "online"
    directory: str | None = None
    upload_as: str | None = None
    options: Mapping[str, object] = {}
    media: Collection[str] = ()
    media_left_out: int = 0

    def send(self, records: Sequence[Record]) -> None:
        """Take records, in the order in which they were logged; may block, and may raise.

        When it returns, they count as delivered: the tracker has them, or keeps them where the end
        of this process does not reach. After an error it is called again, with backoff, with what
        comes after `position`. What a tracker cannot show (events, perhaps) it leaves out. Of
        media the file is there, and stays; it is the run's own: copy it, and do not change it.

        Args:
            records: a few hundred at most. ``record.attempt`` and ``record.seq`` name each one.
        """

    def position(self) -> Position | None:
        """Return the last record that the tracker holds, by its own account; may block and raise.

        It is asked after the start, and after an error of `send`. keisei stores a cursor of its
        own after each `send`; a process that is killed between the two leaves it one `send`
        too low. A tracker that can tell its position, or that takes a record which it has already
        for the same one, therefore gets each record once; another one may get the records of one
        `send` twice.

        Returns:
            The position; ``None`` where the tracker cannot tell, and keisei's cursor counts;
            seq -1 where it holds nothing of that attempt and everything of those before.
        """
        return None

    def kept(self) -> Position | None:
        """Return the last record that outlives this process; must not block for long.

        For a tracker that keeps what it gets in memory for a while. It is asked after each `send`,
        and the cursor goes no further than that: what a kill takes is sent again.

        Returns:
            The position; ``None`` where everything that `send` has taken does.
        """
        return None

    def rewind(self, after: Position) -> bool:
        """Drop the rows behind a position, where the tracker can; may block, and may raise.

        The run was resumed from a checkpoint, and has left them behind. It is asked only where
        rows behind the position were sent; after an error, or a kill, it is asked again. Then
        `position` is asked, and what still holds comes from there on, or from ``after`` where the
        tracker cannot tell: events that it had already got among it, and no row that was left
        behind.

        Returns:
            Whether they are dropped; ``False`` where the tracker keeps what it has got.
        """
        return False

    def finish(self, status: FinalStatus) -> None:
        """End the run with this status; may block, and may raise."""


class Tracker(Protocol):
    """Something that tracks runs. Derive from it for the defaults, or have all members.

    Attributes:
        name: the tracker's name, as the config and the session file write it.
        start_timeout: the longest that a session waits for `start`, in seconds.
    """

    name: str
    start_timeout: float = 30.0

    def start(self, run: RunInfo) -> TrackerRun:
        """Start tracking a run, or resume it where an earlier attempt has; may block and raise.

        A start that raises is tried again, with backoff, unless it raises `TrackerError` or
        `MissingExtraError`. The run may have been killed in an earlier attempt, and may be taken
        up by another process to get what it missed.
        """

    def close(self) -> None:
        """Wait for what the tracker has left under way; called once, last; may block."""
        return


class TrackerFactory(Protocol):
    """What an entry point of the group `keisei.trackers` names: usually the tracker's class."""

    def __call__(self, **options: object) -> Tracker:
        """Return the tracker, made with the user's options."""
