"""What a session, or a member, records with: a journal and logs, opened when the run is joined."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from keisei._io.held import HeldDirectory
from keisei._log import logger
from keisei.config.media import MediaConfig
from keisei.config.schema import JournalConfig
from keisei.console import progress
from keisei.distributed.forwarding import Forwarder, Track
from keisei.errors import JournalError, RunEndedError, TakenOverError
from keisei.journal.attempt import Left
from keisei.journal.media import MEDIA
from keisei.journal.records import Position
from keisei.journal.superseding import RESUME
from keisei.journal.writer import Journal
from keisei.run.failure import EVENT, Failure
from keisei.session import context
from keisei.session.facts import SessionFacts
from keisei.session.last_value import LastValue
from keisei.session.logs import Logs
from keisei.session.media import MediaQueue
from keisei.session.spending import Spending
from keisei.session.stop_at_call import StopAtCall


class Recorder:
    """What a session, or a part of its run, records with: a journal, made when the first row comes.

    Attributes:
        over: why nothing may be logged any more, where another owner has the run, or where it has
            ended while this is a part of it.
        journal: the attempt's journal; ``None`` while nothing has been logged.
        logs: what its lines go through.
        ready: whether something may be logged: the run's directory is the session's own.
        watched: the last value of a metric by which checkpoints are kept.
        stop: what the next call raises, for a body that can be told in no other way.
        spending: what prices and logs what the program spends.
        forwarder: what logs the parts' rows for the trackers, where that is asked for.
        media: what waits to be encoded and kept.
    """

    _making = threading.Lock()

    def __init__(self) -> None:
        self.journal: Journal | None = None
        self.logs = Logs()
        self.over: TakenOverError | RunEndedError | None = None
        self.ready = False
        self.watched = LastValue()
        self.stop = StopAtCall()
        self.spending = Spending()
        self.forwarder: Forwarder | None = None
        self.media = MediaQueue()
        self._entered: context.Entered | None = None
        self._make: Callable[[], Journal] | None = None
        self._attempt: int | None = None
        self._note: tuple[str, object] | None = None
        self._first = -1  # behind which the first record comes

    def open(
        self,
        home: HeldDirectory,
        attempt: int,
        config: JournalConfig,
        on_written: Callable[[], object] | None,
        part: str | None = None,
        left: Left | None = None,
        media: MediaConfig | None = None,
    ) -> None:
        """Take rows from now on; nothing touches the disk before the first one.

        Args:
            home: the run's directory.
            attempt: which attempt the journal is of.
            config: how the journal is written.
            on_written: called on a writer's thread each time that rows have been written.
            part: the part of the run that is written; ``None`` for the owner's own.
            left: what an earlier process has left of the part's journal.
            media: how much of the media is kept; ``None`` for the defaults.
        """
        self._attempt = attempt
        self._make = partial(
            Journal,
            home,
            attempt,
            durability=config.durability,
            max_delay=config.max_delay,
            capacity=config.capacity,
            policy=config.when_full,
            on_written=on_written,
            part=part,
            left=left,
        )
        self.logs.set_up(home, os.path.basename(home.path), part)
        self.media.open(home, media or MediaConfig(), config, self._log_media)
        self._first = -1 if left is None else left.records - 1
        self.ready = True

    def forward(self, home: HeldDirectory, attempt: int, track: Track) -> None:
        """Log what trackers are to have of the run's parts, from now on.

        Args:
            home: the run's directory.
            attempt: which attempt's parts.
            track: what they are to have.
        """

        def log(metrics: Mapping[str, object], step: int | None) -> None:
            if (journal := self.first()) is None:
                raise JournalError("the run's journal takes no records now")
            journal.log_metrics(metrics, step)

        self.forwarder = Forwarder(home, attempt, track, log)
        self.forwarder.start()

    def _log_media(self, said: Mapping[str, object]) -> None:
        """Log that a thing is kept; on the thread that has written it.

        Raises:
            JournalError: nothing can be logged any more.
        """
        if (journal := self.journal) is None:
            raise JournalError("the run's journal takes no records now")
        journal.log_event(MEDIA, said, redact=False)

    def enter(self, facts: SessionFacts[Any] | None = None) -> None:
        """Make the session the current one of this context, and show how it goes on.

        Args:
            facts: what is known of the session; ``None`` for a member, which shows nothing.
        """
        self._entered = context.enter(self.logs)
        if facts is not None:
            progress.show(self, facts)

    def leave(self) -> None:
        """Undo what `enter` has done; where it has not, do nothing."""
        progress.hide(self)
        if self._entered is not None:
            context.leave(self._entered)

    def first(self) -> Journal | None:
        """Return the journal, made now if it has to be; ``None`` where nothing may be logged."""
        with self._making:
            if self.journal is None and self.ready and self._make is not None:
                self.journal = self._make()
                self._log_note()
            return self.journal

    def note(self, name: str, data: object) -> None:
        """Log an event that is no reason to make a journal: it waits until there is one.

        Args:
            name: the kind of event.
            data: what JSON can hold.
        """
        with self._making:
            self._note = name, data
            is_made = self.journal is not None
        if is_made:
            self._log_note()

    def _log_note(self) -> None:
        note, self._note = self._note, None
        if note is not None and self.journal is not None:
            with suppress(JournalError):  # the session has ended meanwhile
                self.journal.log_event(*note)

    def position(self) -> Position | None:
        """Return the position behind the last record that this attempt has logged by now.

        Cheap, on any thread; what is still queued counts. A checkpoint that is taken now has to
        know it: what is logged after it is superseded when the checkpoint is restored.

        Returns:
            The position; behind all earlier attempts where this one has logged nothing yet;
            ``None`` before the run's directory is the session's own.
        """
        if self.journal is not None:
            return self.journal.position()
        return None if self._attempt is None else Position(self._attempt, self._first)

    def resume(self, position: Position | None, step: int | None = None) -> None:
        """Log that the run goes on from a checkpoint: what was logged after it is superseded.

        Call it before anything else is logged of what follows.

        Args:
            position: how far the journal was when the checkpoint was taken.
            step: the checkpoint's step; it decides where there is no position.

        Raises:
            JournalError: nothing can be logged.
        """
        said: dict[str, object] = {} if step is None else {"step": step}
        if position is not None:
            said |= position._asdict()
        if (journal := self.first()) is None:
            raise JournalError("the run's journal takes no records now")
        journal.log_event(RESUME, said)
        self.cut_evaluations()

    def cut_evaluations(self) -> None:
        """Move what a resume has left behind out of the evaluation log, once the journal has it."""
        journal = self.journal

        def resumed(error: JournalError | None) -> None:
            if error is None:
                self.logs.cut_evaluations()
            else:
                self.cut_evaluations()  # it is kept, and tried again

        if journal is not None:
            with suppress(JournalError):  # it is closed
                journal.on_durable(resumed)

    def logged(self) -> int:
        """Return how many rows and events this attempt has logged, without those that are lost."""
        return 0 if self.journal is None else self.journal.kept

    @property
    def started(self) -> bool:
        """Whether `close` could have to wait."""
        return (
            self.logs.started
            or self.media.started
            or (self.journal is not None and self.journal.started)
        )

    def give_up(self, error: TakenOverError | RunEndedError) -> None:
        """Take nothing more: it is not this one's to write. What is queued is lost; never waits."""
        self.over, self.ready = error, False
        if self.forwarder is not None:
            self.forwarder.stop(0.0)
        self.media.close(0.0)
        if self.journal is not None:
            with suppress(JournalError, TimeoutError):
                self.journal.close(0.0)
        self.logs.close(0.0)

    def close(self, timeout: float, failure: Failure | None = None) -> None:
        """Write what is queued, and end; blocks, and logs what could not be written.

        Args:
            timeout: how long it may take, in seconds.
            failure: why the run ended, for the trackers: the journal's last event.
        """
        give_up = time.monotonic() + timeout
        self.media.close(timeout / 2)  # each is named in the journal once it is kept
        if self.ready:
            self.spending.settle()
        if self.forwarder is not None and self.ready:
            if self.journal is not None:
                with suppress(JournalError, TimeoutError):  # it follows what is on the disk
                    self.journal.flush(timeout / 4)
            self.forwarder.stop(timeout / 4)
        with self._making:
            first, self.ready = self.ready, False
            if first and failure is not None and self._make is not None:
                self.journal = self.journal or self._make()
        if first and failure is not None and self.journal is not None:
            with suppress(JournalError):
                self.journal.log_event(EVENT, failure.model_dump())
        if self.journal is not None:
            try:
                self.journal.close(timeout)
            except JournalError as exc:
                logger.error("the journal could not be written in full: %s", exc)
            except TimeoutError as exc:
                logger.error("the journal is not written in full yet, and that goes on: %s", exc)
        progress.hide(self)
        self.logs.close(max(0.0, give_up - time.monotonic()))
