"""The one place that ends a session: the local truth first, the trackers last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio

from keisei._io import files
from keisei._io.loop import load_backend
from keisei._io.offload import whole
from keisei._log import logger
from keisei.run.claim import OwnedRun
from keisei.run.status import FINAL, FinalStatus, check_final
from keisei.session.recording import Recorder
from keisei.session.shutdown import LAST_WORDS, Interruption
from keisei.session.tracking import Tracking
from keisei.session.view import SessionFacts

JOURNAL_TIMEOUT = 30.0  # seconds; what could not be written by then is said to be lost


class OneStep:
    """Lets one step of a session at a time work, in its own process.

    Args:
        facts: what is known of the session.
    """

    def __init__(self, facts: SessionFacts[Any]) -> None:
        self._facts = facts
        self._lock: anyio.Lock | None = None

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Hold the lock, which is made in the loop: it belongs to the loop's backend.

        Raises:
            ForkedSessionError: this process was forked from the session's own.
        """
        self._facts.check_process("this step")
        await load_backend()
        if self._lock is None:
            self._lock = anyio.Lock(fast_acquire=True)
        async with self._lock:
            yield


class Ending:
    """Ends one session, once, whoever asks and however often.

    Args:
        facts: what is known of the session.
        tracking: starts and ends the session's trackers.
        recorder: what the session records with.
        one_step: lets one step at a time work.
    """

    def __init__(
        self,
        facts: SessionFacts[Any],
        tracking: Tracking,
        recorder: Recorder,
        one_step: OneStep,
    ) -> None:
        self.owned: OwnedRun | None = None
        self.interruption = Interruption()
        self._facts = facts
        self._tracking = tracking
        self._recorder = recorder
        self._one_step = one_step
        self._ended: anyio.Event | None = None

    async def end(self, final: FinalStatus) -> FinalStatus:
        """End the session, or wait for the end that is under way.

        Args:
            final: how the session ended; the first caller's word counts.

        Returns:
            How the session ended.
        """
        facts = self._facts
        timeout = self._tracking.longest_finish + 1.0
        if self._ended is None:
            self._ended = anyio.Event()
            facts.status = final
            self._tracking.stop_waiting()
            await self._end(final, self._ended, timeout)
        else:
            with anyio.move_on_after(files.FILE_TIMEOUT + timeout):
                await self._ended.wait()
        return check_final(facts.status)

    async def _end(self, final: FinalStatus, ended: anyio.Event, timeout: float) -> None:
        """Record the end here, then tell the trackers; a cancellation waits for both."""
        begun = False

        async def record() -> None:
            nonlocal begun
            begun = True
            await self._whole(partial(self._record_end, final), files.FILE_TIMEOUT)

        try:
            try:
                async with files.ending():
                    await record()
            finally:
                if not begun:  # cancelled in the crowd: the end does not wait for its turn
                    await record()
        finally:
            try:
                # The clock starts here: a slow disk is no reason to leave a tracker that is well.
                await self._whole(partial(self._tracking.finish, final), timeout)
            finally:
                self.interruption.stop()
                ended.set()

    async def _whole(self, work: Callable[[], Coroutine[Any, Any, None]], timeout: float) -> None:
        try:
            await whole(work, timeout=timeout)
        except TimeoutError:
            logger.error("the end of run %s was not recorded in time", self._facts.run_name)

    async def _record_end(self, final: FinalStatus) -> None:
        facts = self._facts
        async with self._one_step():
            facts.duration_s = facts.elapsed()
            if self._recorder.started:
                await files.in_thread(self._recorder.close, JOURNAL_TIMEOUT)
            else:
                self._recorder.close(0.0)
            if self.owned is not None:
                await self._recorded(self.owned.end(final, facts.duration_s or 0.0))

    async def _recorded(self, written: Awaitable[None]) -> None:
        try:
            await written
        except (OSError, RuntimeError) as exc:
            logger.error("the end of run %s cannot be recorded: %s", self._facts.run_name, exc)

    def end_now(self, final: FinalStatus) -> None:
        """Record the end at once, blocking: for a process that is about to die.

        Args:
            final: how the session ended, where it has no end yet.
        """
        facts = self._facts
        if facts.status in FINAL:
            final = check_final(facts.status)
        facts.status = final
        self._recorder.close(LAST_WORDS / 2)
        if self.owned is not None:
            self.owned.end_now(final, facts.elapsed() or 0.0)
