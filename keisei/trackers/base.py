"""What a tracker is: two small protocols, and what it is told of a run.

A tracker's methods block, and keisei calls them on daemon threads under deadlines: a tracker may
hang or raise without harm. A new one is a file here (or in a package of its own) and a line in
the entry-point group `keisei.trackers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from keisei.run.state import FinalStatus


@dataclass(frozen=True)
class RunInfo:
    """What a tracker is told of the run: plain and picklable.

    Attributes:
        session_id: the run's id, the same for all its attempts.
        run_name: its name.
        attempt: 1 for the first start, 2 for the first resumption.
        directory: its directory, an absolute path.
        config_text: its effective config as JSON, secrets hidden.
    """

    session_id: str
    run_name: str
    attempt: int
    directory: str
    config_text: str


class TrackerRun(Protocol):
    """A run that a tracker has started."""

    @property
    def run_id(self) -> str:
        """The id that the tracker knows the run by."""

    @property
    def url(self) -> str | None:
        """Where people look at the run, if anywhere."""

    @property
    def mode(self) -> Literal["online", "offline"]:
        """Whether the tracker sends what it gets, or keeps it to be sent later."""

    @property
    def directory(self) -> str | None:
        """Where the tracker keeps the run's files, if anywhere."""

    @property
    def upload_as(self) -> str | None:
        """The id to upload the run under, where ``run_id`` is a substitute for it."""

    @property
    def native(self) -> object:
        """The tracker's own object for the run, for what only it can do (media, tables)."""

    def finish(self, status: FinalStatus) -> None:
        """End the run with this status; may block, and may raise."""


class Tracker(Protocol):
    """Something that tracks runs."""

    @property
    def name(self) -> str:
        """The tracker's name, as the config and the session's record write it."""

    @property
    def start_timeout(self) -> float:
        """The longest that a session waits for `start`, in seconds."""

    def start(self, run: RunInfo) -> TrackerRun:
        """Start tracking a run; may block, and may raise."""


class TrackerFactory(Protocol):
    """What an entry point of the group `keisei.trackers` names: usually the tracker's class."""

    def __call__(self, **options: object) -> Tracker:
        """Make the tracker from the user's options."""


Options = Mapping[str, object]
