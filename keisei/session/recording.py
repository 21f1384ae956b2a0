"""The half of a session that records what happens in the run, which both faces share."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol

import anyio

from keisei._io.loop import calling_soon
from keisei.errors import JournalError
from keisei.journal.superseding import RESUME
from keisei.journal.values import exact_step, step_or_unread
from keisei.journal.writer import Journal
from keisei.run.joined import again
from keisei.run.layout import EVALUATION_LOG
from keisei.session import context
from keisei.session.evaluation import plain_record
from keisei.session.facts import ConfigT, SessionFacts
from keisei.session.handle import RunHandle
from keisei.session.launched import SessionLaunch
from keisei.session.log_format import Raw, When
from keisei.session.media_methods import MediaMethods
from keisei.session.spending_methods import SpendingMethods
from keisei.session.usage import Usage

EVALUATION = "evaluation"


class Recorded(Protocol):
    """What is known of a session, or of a member, that records."""

    @property
    def run_name(self) -> str:
        """Its run's name."""

    def forked(self) -> bool:
        """Check whether this process was forked from its own."""

    def check_process(self, step: str) -> None:
        """Check that this process is its own."""

    def not_open(self, step: str) -> Exception:
        """Return the error that nothing may be logged now: it is too early, or too late."""


class Recording(MediaMethods, SpendingMethods):
    """What a session and a member of its run record, without waiting, from the loop or a thread."""

    _facts: Recorded
    _noun = "session"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied: it lives in the process that has started it.

        Raises:
            TypeError: always; the message says what to send instead.
        """
        raise TypeError(
            f"{self._noun} {self._facts.run_name} cannot be pickled: it lives in the process that "
            "has started it. Send the handle, with which another process logs to the same run as "
            "a member (session.handle(), member.handle); or plain values, such as the run's name"
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
        if self._recorder.stop.error is not None:
            self._recorder.stop.check()
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
        self._recorder.stop.check()
        try:
            journal.log_event(name, data, redact=redact)
        except JournalError as exc:
            raise self._no_journal("log_event()") from exc

    def log_handler(self) -> logging.Handler:
        """Return a handler for any logger: it appends lines to `training.log`, and never waits.

        A member's are appended to `training.{role}.log`, and so are other ranks'.

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

        A member's line stands in `evaluation.{role}.log`, and so do other ranks'.

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

    async def _flush(self) -> None:
        try:
            await self._recorder.media.flush()
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
            over = self._recorder.over
            raise outcome[0] if over is None else again(over) from outcome[0]

    def _first(self, step: str) -> Journal:
        journal = None if self._facts.forked() else self._recorder.first()
        if journal is None:
            raise self._no_journal(step)
        return journal

    def _open_journal(self, call: str) -> Journal:
        if not self._recorder.ready or self._facts.forked():
            raise self._no_journal(call)
        return self._first(call)

    def _no_journal(self, step: str) -> Exception:
        self._facts.check_process(step)
        if self._recorder.over is not None:
            return again(self._recorder.over)
        return self._facts.not_open(step)


class SessionRecording(Recording, SessionLaunch[ConfigT]):
    """What a session records, besides what a member of its run does."""

    _facts: SessionFacts[ConfigT]
    _usage: Usage

    def handle(self) -> RunHandle:
        """Return what another process, actor or host needs to log to this run as a member.

        It is a small value without secrets, which pickles: see `AsyncSessionMember`.

        Raises:
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        if not self._recorder.ready or self._facts.forked():
            raise self._no_journal("handle()")
        journal, media = self._facts.config.journal, self._facts.config.media
        return RunHandle(
            run_name=self._facts.run_name,
            session_id=self._facts.session_id,
            attempt=self._facts.attempt,
            directory=self._paths("handle()").run_artifact_dir,
            durability=journal.durability,
            max_delay=journal.max_delay,
            capacity=journal.capacity,
            when_full=journal.when_full,
            media_largest_file=media.largest_file,
            media_largest_total=media.largest_total,
            media_queue=media.queue,
            currency=self._facts.config.cost.currency,
        )

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

    def get_session_summary(self) -> dict[str, Any]:
        """Return what is known of the session as plain data; what is not set up yet is ``None``."""
        journal = self._recorder.journal
        counts = None if journal is None else journal.counters._asdict()
        lines = self._recorder.logs.counters()
        known = {**super().get_session_summary(), "journal": counts, "logs": lines}
        known["media"] = self._recorder.media.summary()
        return {**known, **self._usage.summary()}
