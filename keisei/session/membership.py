"""What a member of a run is, for both of its faces: joined once, ended once, looked after."""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import suppress

from keisei._io.forks import after_in_child
from keisei._log import logger
from keisei.config.schema import JournalConfig
from keisei.errors import (
    ForkedSessionError,
    NotReadyError,
    RunEndedError,
    SessionEndedError,
    SessionInUseError,
    TakenOverError,
)
from keisei.run.failure import Failure
from keisei.run.joined import join
from keisei.run.part_file import check_role
from keisei.run.parts import OwnedPart, claim_part
from keisei.run.status import FinalStatus, Status
from keisei.session.handle import RunHandle, checked
from keisei.session.recorder import Recorder
from keisei.session.usage_part import UsagePart, guarded

JOURNAL_TIMEOUT = 30.0  # seconds; what could not be written by then is said to be lost
EXIT_TIMEOUT = 10.0  # seconds for all the members that a program has forgotten to end
_LOOK, _SIGN = 1.0, 10.0  # seconds between two looks at a run, and two signs of life


class Membership:
    """One member of a run, in the process that it belongs to. What it does blocks.

    Args:
        handle: the run's handle.
        role: the member's role.
        recorder: what it records with; opened when it joins.
        usage: what it measures of itself.

    Attributes:
        handle: the run's handle, checked.
        role: the member's role.
        status: `created`, `running`, or how it has ended.

    Raises:
        HandleError: the handle is none, or damaged.
        InvalidRoleError: the role cannot name files, or is reserved.
    """

    def __init__(self, handle: RunHandle, role: str, recorder: Recorder, usage: UsagePart) -> None:
        self.handle, self._journal, self._media = checked(handle)
        self.role = check_role(role)
        self.status: Status = "created"
        self._recorder = recorder
        self._usage = usage
        recorder.spending.currency = handle.currency
        self._process = os.getpid()
        self._entered = False
        self._part: OwnedPart | None = None
        self._ending = threading.Lock()

    @property
    def run_name(self) -> str:
        """The run's name."""
        return self.handle.run_name

    @property
    def journal_config(self) -> JournalConfig:
        """How its journal is written: as the owner's."""
        return self._journal

    def forked(self) -> bool:
        """Check whether this process was forked from the member's own."""
        return os.getpid() != self._process

    def check_process(self, step: str) -> None:
        """Check that this process is the member's own.

        Raises:
            ForkedSessionError: it was forked from it.
        """
        if self.forked():
            raise ForkedSessionError(
                f"{step}: member {self.role} of run {self.run_name} belongs to process "
                f"{self._process}, which has forked this one. Make a member of its own here, with "
                "another role"
            )

    def not_open(self, step: str) -> Exception:
        """Return the error that nothing may be logged now: it is too early, or too late."""
        if self.status in ("created", "running"):
            return NotReadyError(
                f"{step} needs the run: use the member in its `with` block, or enter it first"
            )
        return SessionEndedError(
            f"{step} comes too late: member {self.role} of run {self.run_name} has ended as "
            f"{self.status}. Call it before the block is left; or make a new member, which goes on "
            "with the same part while the run lives"
        )

    def enter(self) -> None:
        """Note that the member's block is entered.

        Raises:
            ForkedSessionError: this process was forked from the member's own.
            SessionEndedError: the member has ended.
            SessionInUseError: the block was entered before.
        """
        self.check_process("entering the member")
        with self._ending:
            before, self._entered = self._entered, True
        if before and self.status == "running":
            raise SessionInUseError(
                f"member {self.role} of run {self.run_name} is entered already: use it inside its "
                "block as it is, or make a second member with another role"
            )
        if before:
            raise self.not_open("entering the member")

    def join(self) -> None:
        """Join the run and claim the part of the role.

        Raises:
            HandleError: the run's directory cannot be used from here, or is not that run's.
            PartInUseError: a member that lives has this role.
            RunEndedError: the run has ended, or its owner is gone.
            TakenOverError: the run goes on as a later attempt.
            DirectorySetupError: something cannot be read or written.
        """
        handle = self.handle
        run = join(handle.directory, handle.run_name, handle.session_id, handle.attempt)
        self._part = part = claim_part(run, role=self.role)
        with self._ending:
            if self.status == "created":
                self.status = "running"
        self._recorder.open(
            run.home, handle.attempt, self._journal, None, part.part, part.left, self._media
        )
        run.on_over(self._over)
        guarded(self._usage.claimed, self.run_name)
        guarded(self._usage.begin, self.run_name)
        _watch.add(self)

    def end(self, final: FinalStatus, failure: Failure | None, timeout: float) -> None:
        """Write what was logged, and record how the member ended; the first end counts.

        Args:
            final: how it ended.
            failure: why, where an error or a signal ended it.
            timeout: how long what was logged may take, in seconds.
        """
        with self._ending:
            if self.status not in ("created", "running"):
                return
            self.status = final
        _watch.remove(self)
        guarded(self._usage.record_end, self.run_name)
        self._recorder.close(timeout)
        if (part := self._part) is None:
            return
        part.run.forget(self._over)
        try:
            part.end(final, failure)
        except OSError as exc:
            text = "the end of member %s of run %s cannot be recorded: %s"
            logger.error(text, self.role, self.run_name, exc)
        part.release()

    def look(self) -> None:
        """Look whether the run goes on, and measure: what is logged after its end is refused."""
        if self._part is not None:
            self._part.run.look()
        guarded(self._usage.tick, self.run_name)

    def show_life(self) -> None:
        """Show that the process lives, to those who cannot see it."""
        with suppress(OSError):
            if self._part is not None:
                self._part.show_life()

    def _over(self, error: RunEndedError | TakenOverError) -> None:
        """Take nothing more: the run has ended, or goes on without this member."""
        lost = self._recorder.journal
        queued = 0 if lost is None else lost.counters.queued
        self._recorder.give_up(error)
        if queued:
            text = "member %s: %s. What it logged last is refused: %d rows and events"
            logger.warning(text, self.role, error, queued)


class _Watch:
    """Looks after the members of this process, in one thread, which ends with the last of them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._members: set[Membership] = set()
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()

    def add(self, member: Membership) -> None:
        """Look after a member from now on."""
        with self._guard:
            self._members.add(member)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="keisei-members", daemon=True)
                with suppress(RuntimeError):  # no thread is left: then by what it writes alone
                    thread.start()
                    self._thread = thread

    def remove(self, member: Membership) -> None:
        """Look after a member no longer."""
        with self._guard:
            self._members.discard(member)
            if not self._members:
                self._changed.set()

    def members(self) -> list[Membership]:
        """Return those that are looked after."""
        with self._guard:
            return list(self._members)

    def _run(self) -> None:
        next_sign = time.monotonic() + _SIGN
        while True:
            self._changed.wait(_LOOK)
            with self._guard:
                self._changed.clear()
                if not self._members:
                    self._thread = None
                    return
                members = list(self._members)
            signs = time.monotonic() >= next_sign
            next_sign += _SIGN if signs else 0.0
            for member in members:
                member.look()
                if signs:
                    member.show_life()


_watch = _Watch()


def _forget() -> None:
    global _watch
    _watch = _Watch()


def _end_forgotten() -> None:
    """End what the program has forgotten."""
    give_up = time.monotonic() + EXIT_TIMEOUT
    for member in _watch.members():
        logger.warning(
            "member %s of run %s was not ended before the interpreter's exit, and is recorded as "
            "cancelled: use it in a `with` block",
            member.role,
            member.run_name,
        )
        member.end("cancelled", None, max(0.0, give_up - time.monotonic()))


after_in_child(_forget)
atexit.register(_end_forgotten)
