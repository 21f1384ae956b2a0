"""How a session ends: the local truth first, then the trackers.

`Ending.record_end` records the end. It blocks, and runs on a daemon thread: the async face only
waits for it, the blocking face waits for that, and a signal that leaves no time calls it itself.
"""

from __future__ import annotations

import atexit
import os
import time
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import anyio

from keisei._io import files
from keisei._io.backoff import Backoff, may_pass
from keisei._io.loop import ThreadEvent, load_backend
from keisei._io.offload import Work, patiently
from keisei._log import logger
from keisei.distributed import slurm
from keisei.distributed.meeting import Meeting
from keisei.distributed.rank import Owned
from keisei.errors import RankLostError, TakenOverError, quoted
from keisei.monitoring.phases import WAITING
from keisei.run.failure import Failure, failure_of
from keisei.run.status import FINAL, FinalStatus, check_final
from keisei.session.checkpointing import Checkpointing
from keisei.session.facts import SessionFacts
from keisei.session.provenance import Snapshot
from keisei.session.recorder import Recorder
from keisei.session.shutdown import LAST_WORDS, Interruption, error_at_exit
from keisei.session.tracking import Tracking
from keisei.session.usage import Usage
from keisei.session.watching import Watching

JOURNAL_TIMEOUT = 30.0  # seconds; what could not be written by then is said to be lost
EXIT_TIMEOUT = 10.0  # seconds for all the sessions that a program has forgotten to end

REQUEUE_TIMEOUT = 2 * slurm.ASK_TIMEOUT

_open: set[Ending] = set()
_living: set[Ending] = set()  # those that are not through with their end


class OneStep:
    """Lets one step of a session at a time work, in its own process.

    Args:
        facts: what is known of the session.
    """

    def __init__(self, facts: SessionFacts[Any]) -> None:
        self._facts = facts
        self._lock: anyio.Lock | None = None

    async def __aenter__(self) -> None:
        """Take the lock, which is made in the loop: it belongs to the loop's backend.

        Raises:
            ForkedSessionError: this process was forked from the session's own.
        """
        self._facts.check_process("this step")
        await load_backend()
        if self._lock is None:
            self._lock = anyio.Lock(fast_acquire=True)
        await self._lock.acquire()

    async def __aexit__(self, *exc: object) -> None:
        assert self._lock is not None
        self._lock.release()

    @property
    def at_work(self) -> bool:
        """Whether a step is at work."""
        return self._lock is not None and self._lock.locked()

    async def is_over(self) -> None:
        """Wait until no step is at work."""
        async with self:
            pass


class Ending:
    """Ends one session, once, whoever asks and however often.

    Args:
        facts: what is known of the session.
        tracking: its trackers.
        recorder: what it records with.
        one_step: lets one step at a time work.
        interruption: what ends it before its body does.
        watching: what looks for that elsewhere.
        checkpointing: its checkpoints.
        usage: what it measures of itself.

    Attributes:
        snapshot: what records where the session comes from.
        usage: what it measures of itself.
    """

    def __init__(
        self,
        facts: SessionFacts[Any],
        tracking: Tracking,
        recorder: Recorder,
        one_step: OneStep,
        interruption: Interruption,
        watching: Watching,
        checkpointing: Checkpointing,
        usage: Usage,
    ) -> None:
        self._facts = facts
        self._tracking = tracking
        self._recorder = recorder
        self._one_step = one_step
        self._interruption, self._watching = interruption, watching
        interruption.end_now = self.end_now
        self._checkpointing = checkpointing
        self._over: ThreadEvent | None = None
        self.snapshot = Snapshot(facts, recorder)
        self.usage = usage

    def entered(self) -> None:
        """Begin what goes on beside the body; called in the loop, after the last step."""
        self.snapshot.begin()
        if self._facts.status not in FINAL:
            self.usage.begin()

    async def end(self, status: FinalStatus, failure: Failure | None = None) -> FinalStatus:
        """End the session, or wait for the end that is under way.

        Args:
            status: how the session ended; the first caller's word counts.
            failure: why, where an error or a signal ended it.

        Returns:
            How the session ended.
        """
        if self._over is None:
            self._over = ThreadEvent()
            try:
                await self._end_as(status, failure)
            finally:
                self._interruption.stop()
                self._watching.stop()
                _living.discard(self)
                self._over.set()
        else:
            longest = 3 * files.FILE_TIMEOUT + self._checkpointing.schedule.time_left
            with anyio.move_on_after(longest + self._tracking.longest_finish):
                await self._over.wait()
        return self._facts.ends_as(status, failure)

    async def _end_as(self, status: FinalStatus, failure: Failure | None) -> None:
        """End the session as all ranks end, where there are others."""
        ranks = self._facts.ranks
        try:
            if ranks is not None and self._facts.status not in FINAL:
                with self.usage.phases.own(WAITING):
                    await ranks.settle(status, failure)
        finally:
            truth = (status, failure) if ranks is None else ranks.truth(status, failure)
            final = self._facts.ends_as(*truth)
            self._tracking.stop_waiting()
            try:
                await self._end(final)
            finally:
                if ranks is not None:
                    await ranks.owner_is_over()

    async def _end(self, status: FinalStatus) -> None:
        """Record the end, then end the trackers; a cancellation waits for both, and goes on."""
        self.snapshot.hasten()
        self.usage.leave_loop()
        try:
            await load_backend()
            if self._one_step.at_work:
                with suppress(TimeoutError):
                    await patiently(self._one_step.is_over, files.FILE_TIMEOUT)
        finally:
            try:
                await self._checkpointing.is_over()
            finally:
                try:
                    await self._recorded(status)
                finally:
                    try:
                        await self._tracked(status)
                    finally:
                        try:
                            await self._checkpointing.is_copied()
                        finally:
                            try:
                                await self.snapshot.is_over()
                            finally:
                                await self._requeued(status)

    async def _requeued(self, status: FinalStatus) -> None:
        """Ask SLURM to requeue the job, last of all: that ends the process."""
        _living.discard(self)
        if self._asks_for_requeue(status):
            work = Work(self._requeue)
            with suppress(TimeoutError):
                await patiently(work.result, REQUEUE_TIMEOUT)

    def _asks_for_requeue(self, status: FinalStatus) -> bool:
        """Check whether the job is requeued now: the last session of the process asks for it."""
        launch, wanted = self._facts.launch, self._facts.config.distributed.requeue
        is_first = launch is None or launch.rank == 0
        return status == "preempted" and wanted and is_first and not _living

    def _requeue(self) -> None:
        job, name = slurm.job_of(os.environ), self._facts.run_name
        if job is None:
            logger.warning("run %s is not requeued: this is no SLURM job (SLURM_JOB_ID)", name)
            return
        logger.info("run %s: SLURM is asked to requeue job %s", name, job)
        try:
            slurm.requeue(job)
        except OSError as exc:
            text = "run %s: SLURM has not requeued job %s: %s"
            logger.warning(text, name, job, quoted(str(exc), 300)[1:-1])

    async def _tracked(self, status: FinalStatus) -> None:
        # The clock starts here: a slow disk is no reason to leave a tracker that is well.
        if timeout := self._tracking.longest_finish:
            finish = partial(self._tracking.finish, status)
            with suppress(TimeoutError):
                await patiently(finish, timeout + files.FILE_TIMEOUT)

    async def _recorded(self, status: FinalStatus) -> None:
        turn = files.turn()
        has_turn = False
        try:
            await turn.acquire()
            has_turn = True
        finally:  # cancelled in the crowd: the end does not wait for its turn
            recording = Work(partial(self.record_end, status))
            try:
                await patiently(recording.result, files.FILE_TIMEOUT)
            except TimeoutError:
                recording.leave()
                logger.error(
                    "the end of run %s is not recorded after %.0f s: the disk has not answered, "
                    "and it is recorded when it does, if the process still runs",
                    self._facts.run_name,
                    files.FILE_TIMEOUT,
                )
            finally:
                if has_turn:
                    turn.release()

    def record_end(self, status: FinalStatus, timeout: float | None = None) -> None:
        """Record the end: the journal and the logs, the session file, the end line. It blocks.

        It may be called twice, and by two threads at once: the first end that is recorded stays.

        Args:
            status: how the session ended, where it has no end yet.
            timeout: how long a save that is under way, the journal and the logs may take, and how
                long the rest is tried again, in seconds; ``None`` for `JOURNAL_TIMEOUT`.
        """
        _open.discard(self)
        if self._interruption.verdict.notice is None:
            self._watching.stop()  # else there may be a deadline to keep
        facts = self._facts
        status = facts.ends_as(status)
        duration_s = facts.has_ended()
        timeout = JOURNAL_TIMEOUT if timeout is None else timeout
        give_up = time.monotonic() + timeout
        if facts.ranks is not None:
            facts.ranks.has_ended(status, facts.failure)
            facts.ranks.stop()
        self._checkpointing.close(timeout / 2)
        self.usage.record_end()
        self._recorder.close(max(0.0, give_up - time.monotonic()), facts.failure)
        if facts.owned is not None:
            try:
                self._write_end(facts.owned, status, duration_s, give_up)
            except TakenOverError:
                pass  # that was logged, and the end is not this one's to record
            except (OSError, RuntimeError) as exc:
                text = "the end of run %s cannot be recorded: %s"
                if facts.owned.recorded:
                    text = "the end of run %s is recorded, but not in its training log: %s"
                logger.error(text, facts.run_name, exc)
            facts.owned.release()

    def _write_end(
        self, owned: Owned, status: FinalStatus, duration_s: float, give_up: float
    ) -> None:
        """Write the end, and try again where the disk refuses it, until the time is over."""
        backoff = Backoff(0.05, 0.5)
        for retry in count():
            try:
                owned.end(status, duration_s, self._facts.failure)
                return
            except OSError as exc:
                left = give_up - time.monotonic()
                if left <= 0 or not may_pass(exc):
                    raise
                if retry == 0:
                    text = "the end of run %s cannot be recorded yet, tried again for %.0f s: %s"
                    logger.warning(text, self._facts.run_name, left, exc)
            time.sleep(min(backoff.next(), left))

    def taken_over(self, error: TakenOverError) -> None:
        """Stop the session, whose run another owner has taken over; never waits.

        Args:
            error: what says so.
        """
        logger.error("run %s: %s", self._facts.run_name, error)
        self._facts.lost(failure_of(error))
        self._recorder.give_up(error)
        self._interruption.take_over(error)

    def lost(self, error: RankLostError) -> None:
        """Cancel the body, for another rank has ended the run; never waits.

        Args:
            error: what leaves the session.
        """
        self._interruption.take_over(error)

    def begin(self) -> None:
        """Note that there is something to end: the run is owned."""
        _open.add(self)
        _living.add(self)
        if (owned := self._facts.owned) is not None:
            launch, record = self._facts.launch, owned.record
            if launch is not None and launch.world_size > 1:
                where = owned.home, record.attempt, launch.rank, launch.world_size
                self._watching.meeting = Meeting(*where)
                self._watching.last_step = lambda: self._checkpointing.schedule.reached
            self._watching.start(owned.home, record.session_id, record.attempt)

    def end_at_exit(self, error: BaseException | None, timeout: float) -> None:
        """Record the end of a session that the program has not ended before the interpreter's exit.

        Args:
            error: what ends the program, if it is known.
            timeout: how long it may take, in seconds.
        """
        facts = self._facts
        if facts.forked() or facts.owned is None or facts.owned.home.removed:
            return
        if facts.status not in FINAL:
            status, reason = (
                self._interruption.verdict.ends_as(error),
                self._interruption.verdict.reason(error),
            )
            if status == "completed" and facts.entered:
                status = "cancelled"  # its block was cut off
            facts.ends_as(status, reason)
            why = " (no error is known; what sys.exit was given is not)"
            text = (
                "run %s was not ended before the interpreter's exit, and is recorded as %s%s: use "
                "the session in a `with` block, or call finalize_session() when the run is over"
            )
            logger.warning(text, facts.run_name, status, why if status == "completed" else "")
        self.record_end(check_final(facts.status), timeout)

    def end_now(self, status: FinalStatus, failure: Failure | None) -> None:
        """Record the end for a process that is about to die; see `record_end`."""
        self._checkpointing.close(0.0)
        status = self._facts.ends_as(status, failure)
        self.record_end(status, LAST_WORDS / 2)
        _living.discard(self)
        if self._asks_for_requeue(status):
            self._requeue()


def _end_forgotten() -> None:
    """End what the program has forgotten."""
    give_up = time.monotonic() + EXIT_TIMEOUT
    error = error_at_exit()
    for ending in list(_open):
        ending.end_at_exit(error, max(0.0, give_up - time.monotonic()))


# Hooks run backwards: whatever a program registers for its sessions runs before this one.
atexit.register(_end_forgotten)
