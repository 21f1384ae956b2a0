"""What ends a session, and as what: the notice that came, and what leaves its body. No effects."""

from __future__ import annotations

import signal

from keisei.distributed.preemption import Notice, Preempting
from keisei.errors import RankLostError, RunCancelledError, TakenOverError
from keisei.run.failure import Failure, ended_by, failure_of
from keisei.run.status import FinalStatus, status_after


class Verdict:
    """What is known of how one session ends. Every method may be called in a signal's handler.

    Attributes:
        taken_over: the error that another process has ended the session by, once that is known: an
            owner that has taken the run over, or a rank.
    """

    def __init__(self) -> None:
        self.taken_over: TakenOverError | RankLostError | None = None
        self._notices: list[Notice] = []  # the first one counts: appending needs no lock
        self._raised: BaseException | None = None

    def is_first(self, notice: Notice) -> bool:
        """Note what ends the session; return whether it is the first, which decides."""
        self._notices.append(notice)
        return self._notices[0] is notice

    @property
    def notice(self) -> Notice | None:
        """What ends the session, if anything does by now."""
        return self._notices[0] if self._notices else None

    @property
    def preempting(self) -> Preempting | None:
        """The preemption that is under way, if there is one."""
        return None if self.notice is None else self.notice.preempting

    @property
    def error(self) -> BaseException | None:
        """What leaves the session when a notice has ended it; ``None`` where none has.

        `KeyboardInterrupt` for SIGINT, `RunCancelledError` where only this session is to end, else
        `SystemExit` with 128 and the signal's number.
        """
        if (notice := self.notice) is None:
            return None
        if self._raised is None:
            if notice.number is None:
                self._raised = RunCancelledError(f"the run is cancelled by {notice.source}")
            elif notice.number == signal.SIGINT:
                self._raised = KeyboardInterrupt()
            else:
                self._raised = SystemExit(128 + notice.number)
        return self._raised

    def ends_as(self, exc: BaseException | None) -> FinalStatus:
        """Return how the session ends: by what leaves its body, and the notice if one came."""
        if self.taken_over is not None:
            return "failed"
        notice = self.notice
        return status_after(exc) if notice is None or self._fails_itself(exc) else notice.status

    def reason(self, exc: BaseException | None) -> Failure | None:
        """Return why the session ends so: the error that leaves its body, or the notice."""
        if self.taken_over is not None:
            return failure_of(self.taken_over)
        return failure_of(exc) if self._fails_itself(exc) else self.told_by() or failure_of(exc)

    def told_by(self) -> Failure | None:
        """Return the notice as the reason of the end; ``None`` where none came."""
        error, notice = self.error, self.notice
        return None if error is None or notice is None else ended_by(notice.source, error)

    def _fails_itself(self, exc: BaseException | None) -> bool:
        """Return whether the body has failed by an error of its own, whatever notice came."""
        return status_after(exc) == "failed" and not self._is_its_exit(exc)

    def _is_its_exit(self, exc: BaseException | None) -> bool:
        """Return whether the notice raised it, perhaps through a session around this one."""
        error = self.error
        return (
            isinstance(exc, SystemExit) and isinstance(error, SystemExit) and exc.code == error.code
        )
