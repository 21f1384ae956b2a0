"""The half of a session that records what happens in the run, which both faces share."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, NoReturn

import anyio

from keisei._io.held import HeldDirectory
from keisei._io.loop import calling_soon
from keisei._log import logger
from keisei.config.schema import JournalConfig
from keisei.console import progress
from keisei.errors import JournalError, NotReadyError, TakenOverError
from keisei.journal.attempt import Left
from keisei.journal.records import Position
from keisei.journal.superseding import RESUME
from keisei.journal.values import exact_step, step_or_unread
from keisei.journal.writer import Journal
from keisei.run.failure import EVENT, Failure
from keisei.run.layout import EVALUATION_LOG
from keisei.run.owned import again
from keisei.run.status import FINAL, too_late
from keisei.session import context
from keisei.session.evaluation import plain_record
from keisei.session.facts import ConfigT, SessionFacts
from keisei.session.last_value import LastValue
from keisei.session.log_format import Raw, When
from keisei.session.logs import Logs
from keisei.session.view import SessionView

EVALUATION = "evaluation"


class Recorder:
    """What a session records with: its journal, made when the first row comes.

    Attributes:
        taken_over: why nothing may be logged any more, where another owner has the run.
        journal: the attempt's journal; ``None`` while nothing has been logged.
        logs: what its lines go through.
        ready: whether something may be logged: the run's directory is the session's own.
        watched: the last value of a metric by which checkpoints are kept.
    """

    _making = threading.Lock()

    def __init__(self) -> None:
        self.journal: Journal | None = None
        self.logs = Logs()
        self.taken_over: TakenOverError | None = None
        self.ready = False
        self.watched = LastValue()
        self._entered: context.Entered | None = None
        self._make: Callable[[], Journal] | None = None
        self._attempt: int | None = None

    def open(
        self,
        home: HeldDirectory,
        attempt: int,
        config: JournalConfig,
        on_written: Callable[[], object],
        part: str | None = None,
        left: Left | None = None,
    ) -> None:
        """Take rows from now on; nothing touches the disk before the first one.

        Args:
            home: the run's directory.
            attempt: which attempt the journal is of.
            config: how the journal is written.
            on_written: called on a writer's thread each time that rows have been written.
            part: the part of the run that is written; ``None`` for the owner's own.
            left: what an earlier process has left of the part's journal.
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
        self.ready = True

    def enter(self, facts: SessionFacts[Any]) -> None:
        """Make the session the current one of this context, and show how it goes on."""
        self._entered = context.enter(self.logs)
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
            return self.journal

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
        return None if self._attempt is None else Position(self._attempt, -1)

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
        return self.logs.started or (self.journal is not None and self.journal.started)

    def give_up(self, error: TakenOverError) -> None:
        """Take nothing more: another owner has the run. What is queued is lost; never waits."""
        self.taken_over, self.ready = error, False
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


class SessionRecording(SessionView[ConfigT]):
    """What a session records, from the loop or from any thread, without waiting."""

    _recorder: Recorder

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied: a session lives in the process that has started it.

        Raises:
            TypeError: always; the message says what to send instead.
        """
        raise TypeError(
            f"session {self._facts.run_name} cannot be pickled: it lives in the process that has "
            "started it. Send what the other process needs (session.run_name, session.model_dir), "
            "let it return its numbers, and log them here; or start a session of its own there"
        )

    def log_metrics(self, metrics: Mapping[str, object], step: int | None = None) -> None:
        """Log one row of metrics; it never touches the disk, and never waits for a tracker.

        Args:
            metrics: numbers by name: bool, int, float, and what numpy, jax, torch and their like
                have for one; nested mappings are joined with `/`. It is copied. A number that may
                still be under computation (of jax, or on a GPU) is read by the writer's thread;
                one that cannot be read then is NaN, with one warning.
            step: the training step, if the row has one: a whole number.

        Raises:
            TypeError: a value is no number, or a step not whole; the message names it.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        journal = self._recorder.journal or self._first("log_metrics()")
        try:
            journal.log_metrics(metrics, step)
            if self._recorder.watched.name is not None:
                self._recorder.watched.note(metrics)
        except JournalError as exc:
            raise self._no_journal("log_metrics()") from exc

    def log_event(self, name: str, data: object = None, *, redact: bool = True) -> None:
        """Log what is not a number, in one order with the rows.

        Args:
            name: the kind of event.
            data: what JSON can hold.
            redact: whether secrets in it are hidden before it is written; `False` keeps a text
                that only looks like one as it is.

        Raises:
            TypeError: the data is not JSON's.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        journal = self._recorder.journal or self._first("log_event()")
        try:
            journal.log_event(name, data, redact=redact)
        except JournalError as exc:
            raise self._no_journal("log_event()") from exc

    def resume_at(self, step: int) -> None:
        """Note that the program has restored a checkpoint of its own, taken at this step.

        What earlier attempts, or this one, have logged after it is superseded for every reader:
        the run shows what one that was never interrupted would have. Call it before the first row
        that follows.

        Args:
            step: the training step of the checkpoint.

        Raises:
            TypeError: the step is no integer.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        self.log_event(RESUME, {"step": exact_step(step)})
        self._recorder.cut_evaluations()

    def log_handler(self) -> logging.Handler:
        """Return a handler for any logger: it appends lines to `training.log`, and never waits.

        It takes the records that are emitted where this session is the current one (in the block
        of the session, the tasks and `anyio.to_thread` calls that it starts, and `as_current`);
        those of a context without a session only while no other session has a handler. A line is
        on the disk 0.2 s later, when `flush` returns, and before the session's end line.

        Returns:
            The session's handler, the same one for every logger.

        Raises:
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        if not self._recorder.logs.open:
            raise self._no_journal("log_handler()")
        return self._recorder.logs.handler()

    def as_current(self) -> AbstractContextManager[None]:
        """Make this session the current one, for a `with` block in a thread or an actor.

        The records that are emitted there are for this session's handler. The block of the
        session itself, and what it starts, needs it not.
        """
        return context.inside(self._recorder.logs)

    def log_evaluation(
        self, record: Mapping[str, object], step: int | None = None, *, redact: bool = True
    ) -> None:
        """Log what an evaluation has come to: a JSON line in `evaluation.log`, and metrics.

        Its numbers are logged as `log_metrics` logs them, with `evaluation/` before their names;
        one that has none is an event, `evaluation`. The line says how far the journal is with it
        (`attempt`, `seq`), so that a resume knows whether it goes on from it. Non-finite numbers
        stand in the line as strings (`"NaN"`, `"Infinity"`, `"-Infinity"`).

        Args:
            record: what JSON can hold, by name; numbers may be numpy's or torch's. It is copied.
            step: the training step, if it has one.
            redact: whether secrets in it are hidden before it is written.

        Raises:
            TypeError: JSON cannot hold a value; the message names the key.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        if not self._recorder.logs.open:
            raise self._no_journal("log_evaluation()")
        data, numbers = plain_record(record)
        when = step_or_unread(step)
        if numbers:
            self.log_metrics({"evaluation": numbers}, when)  # type: ignore[arg-type]
        else:
            self.log_event(EVALUATION)
        about = When(when, self._recorder.position())
        self._recorder.logs.start()
        self._recorder.logs.put((EVALUATION_LOG, time.time(), about, data if redact else Raw(data)))

    def get_session_summary(self) -> dict[str, Any]:
        """Return what is known of the session as plain data; what is not set up yet is ``None``."""
        journal = self._recorder.journal
        counts = None if journal is None else journal.counters._asdict()
        lines = self._recorder.logs.counters()
        return {**super().get_session_summary(), "journal": counts, "logs": lines}

    async def _flush(self) -> None:
        try:
            await self._flush_journal()
        finally:  # last: what a resume does to the evaluation log comes after the journal
            await self._recorder.logs.flush()

    async def _flush_journal(self) -> None:
        journal = self._recorder.journal
        if journal is None:
            if not self._recorder.ready or self._facts.forked():
                raise self._no_journal("flush()")
            return  # nothing has been logged
        outcome: list[JournalError | None] = []
        answered = anyio.Event()
        wake = calling_soon(answered.set)

        def answer(error: JournalError | None) -> None:
            outcome.append(error)
            wake()

        try:
            journal.on_durable(answer)
        except JournalError as exc:
            if self._recorder.ready and not self._facts.forked():
                raise  # no thread can be started
            raise self._no_journal("flush()") from exc
        await answered.wait()
        if outcome[0] is not None:
            raise outcome[0]

    def _first(self, step: str) -> Journal:
        journal = None if self._facts.forked() else self._recorder.first()
        if journal is None:
            raise self._no_journal(step)
        return journal

    def _no_journal(self, step: str) -> Exception:
        self._facts.check_process(step)
        if self._recorder.taken_over is not None:
            return again(self._recorder.taken_over)
        if self._facts.status in FINAL:
            return too_late(step, self._facts.status)
        return NotReadyError(f"{step} needs the run's directories: call setup_directories() first")
