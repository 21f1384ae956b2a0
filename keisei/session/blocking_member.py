"""A member of a run for scripts and threads: each call waits for its async namesake."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from keisei._io import portal
from keisei.session.handle import RunHandle
from keisei.session.member import AsyncSessionMember, MemberView


class SessionMember(MemberView):
    """A member of a run that another process owns, for scripts, threads and notebooks.

    Use it as ``with SessionMember(handle, role="rollout-3") as member:``. Each method does what
    its namesake of `AsyncSessionMember` does, and waits for it.

    Args:
        handle: what `handle()` of the run's session has returned, in whatever process.
        role: what the member's part is called.

    Raises:
        HandleError: the handle is none, or damaged.
        InvalidRoleError: the role could not name files on every system, or is reserved.
    """

    def __init__(self, handle: RunHandle, role: str) -> None:
        self._member = AsyncSessionMember(handle, role)
        self._recorder, self._facts = self._member._recorder, self._member._facts
        self._phases = self._member._phases

    def __enter__(self) -> Self:
        """Join the run; see `AsyncSessionMember`."""
        self._facts.enter()
        portal.call(self._member._join)
        self._recorder.enter()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what was logged, and record how the member ended; the run goes on."""
        try:
            portal.last_call(self._member._end_after, exc)
        finally:
            self._recorder.leave()

    def flush(self) -> None:
        """Wait until all that was logged before is durable; see `AsyncSessionMember`."""
        portal.call(self._member.flush)
