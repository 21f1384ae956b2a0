"""A member of a run: another process, actor or host that logs to it, on an event loop."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self

import anyio

from keisei._io import files
from keisei._io.loop import load_backend
from keisei._io.offload import Work, patiently
from keisei._log import logger
from keisei.monitoring.phases import WAITING
from keisei.run.failure import failure_of
from keisei.run.status import Status, status_after
from keisei.session.handle import RunHandle
from keisei.session.membership import JOURNAL_TIMEOUT, Membership
from keisei.session.phases import Phases
from keisei.session.recorder import Recorder
from keisei.session.usage_methods import PhaseMethods


class MemberView(PhaseMethods):
    """What can be read of a member at any time, without waiting."""

    _facts: Membership
    _noun = "member of run"

    @property
    def handle(self) -> RunHandle:
        """The handle that it was made with, for members that it starts itself."""
        return self._facts.handle

    @property
    def role(self) -> str:
        """The member's role, which is what its part of the run is called."""
        return self._facts.role

    @property
    def run_name(self) -> str:
        """The run's name."""
        return self._facts.handle.run_name

    @property
    def session_id(self) -> str:
        """The run's id."""
        return self._facts.handle.session_id

    @property
    def attempt(self) -> int:
        """The run's attempt that it is a member of."""
        return self._facts.handle.attempt

    @property
    def run_artifact_dir(self) -> str:
        """The run's directory, absolute."""
        return self._facts.handle.directory

    @property
    def status(self) -> Status:
        """`created`, `running`, or how the member ended."""
        return self._facts.status


class AsyncSessionMember(MemberView):
    """A member of a run that another process owns, for programs on an event loop.

    Use it as ``async with AsyncSessionMember(handle, role="rollout-3") as member:``. What it logs
    is a part of the run, in files of its own (``metrics.{attempt}.{role}.journal``,
    ``training.{role}.log``). The run's end is its owner's: after it, what a member logs is refused.

    Args:
        handle: what `handle()` of the run's session has returned, in whatever process.
        role: what the member's part is called. One member that lives has a role; the role of one
            that has ended or died is taken up again, and its part goes on.

    Raises:
        HandleError: the handle is none, or damaged.
        InvalidRoleError: the role could not name files on every system, or is reserved.
    """

    def __init__(self, handle: RunHandle, role: str) -> None:
        self._recorder = Recorder()
        self._phases = Phases(self._recorder)
        self._facts = Membership(handle, role, self._recorder, self._phases)

    async def __aenter__(self) -> Self:
        """Join the run.

        Raises:
            HandleError: the run's directory cannot be used from here, or is not that run's.
            PartInUseError: a member that lives has this role.
            RunEndedError: the run has ended, or its owner is gone.
            TakenOverError: the run goes on as a later attempt.
            SessionInUseError: the member is entered already.
            DirectorySetupError: something cannot be read or written.
        """
        await load_backend()
        self._facts.enter()
        await self._join()
        self._recorder.enter()
        return self

    async def _join(self) -> None:
        try:
            await files.in_thread(self._facts.join)
        except BaseException as exc:
            await self._end_after(exc)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what was logged, and record how the member ended; the run goes on."""
        try:
            await self._end_after(exc)
        finally:
            self._recorder.leave()

    async def _end_after(self, exc: BaseException | None) -> None:
        """End the member, although the caller is cancelled; its own error tells more than that."""
        facts = self._facts
        if facts.forked():
            text = "member %s of run %s goes on in the process that has forked this one"
            logger.warning(text, facts.role, facts.run_name)
            return
        end = partial(facts.end, status_after(exc), failure_of(exc), JOURNAL_TIMEOUT)
        work = Work(end)
        try:
            await patiently(work.result, JOURNAL_TIMEOUT + files.FILE_TIMEOUT)
        except TimeoutError:
            work.leave()
            text = "the end of member %s of run %s is not recorded yet: the disk has not answered"
            logger.error(text, facts.role, facts.run_name)
        except anyio.get_cancelled_exc_class():
            if exc is None:
                raise

    async def flush(self) -> None:
        """Wait until all that was logged before is as durable as ``journal.durability`` says.

        Raises:
            JournalError: it cannot be written now; it is kept, and tried again.
            RunEndedError: the run has ended, and what was logged since then is refused.
            TakenOverError: the run goes on as a later attempt.
            NotReadyError: the member has not joined the run.
            SessionEndedError: the member has ended, and has waited for it.
        """
        with self._phases.own(WAITING):
            await self._flush()
