"""The same life for scripts, threads and notebooks: each call waits for its async namesake."""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any, Self

from keisei._io import portal
from keisei.run.status import FinalStatus
from keisei.session.async_session import AsyncSessionManager
from keisei.session.callbacks import LoggerFunc
from keisei.session.checkpoint_methods import BlockingCheckpoints
from keisei.session.facts import ConfigT
from keisei.trackers.base import Tracker


class SessionManager(BlockingCheckpoints[ConfigT]):
    """The life of one training run, for scripts, threads and notebooks: the blocking face.

    Use it as ``with SessionManager(config) as session:``, or take the steps one by one. Each
    method does what its namesake of `AsyncSessionManager` does, and waits for it.

    Args:
        config: an `AppConfig`, a model derived from it, or the config that you have: a pydantic
            model, a dataclass, an attrs class, a mapping, a `DictConfig`, a namespace.
        args: the program's arguments (a namespace, any object, a mapping), of which only
            ``run_name`` is read.
        run_name: the run's name; without it, ``args``, the config or a generated one decides.

    Raises:
        ConfigError: the config has no fields, or a section of keisei's in it is not valid.
        InvalidRunNameError: the name is not a safe one.
    """

    def __init__(self, config: ConfigT, args: object = None, run_name: str | None = None) -> None:
        self._session = AsyncSessionManager(config, args, run_name)
        self._facts = self._session._facts
        self._tracking = self._session._tracking
        self._recorder = self._session._recorder
        self._checkpointing = self._session._checkpointing
        self._interruption = self._session._interruption
        self._watching = self._session._watching
        self._usage = self._session._usage
        self._phases = self._session._phases
        self._usage.lag.in_own_loop = False
        self._entering = False
        self._tell = self._interrupt

    def __enter__(self) -> Self:
        """Take the set-up steps in their order; a failed one ends the session before it raises."""
        self._facts.enter()
        if self._facts.config.signals.handle:
            self.handle_signals()
        self._recorder.enter(self._facts)
        try:
            self._entering = True
            portal.call(self._enter)
            self._entering = False
            error = self._interruption.verdict.error
            if error is not None and not self._interruption.holds:
                raise error
            return self
        except BaseException as exc:
            self._end_after(exc)
            raise

    async def _enter(self) -> None:
        self._interruption.open_scope()
        left: BaseException | None = None
        try:
            await self._session._enter()
        except BaseException as exc:  # noqa: BLE001 - raised again below
            left = exc
        left = self._interruption.leave(left)
        # What a signal raises is raised in the caller's thread: here it would end the loop.
        if left is not None and left is not self._interruption.verdict.error:
            raise left

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the session with the truth about how the body ended; its error goes on."""
        self._end_after(exc)
        left = self._interruption.leave(exc)
        if left is not None and left is not exc:
            raise left from None

    def _end_after(self, exc: BaseException | None) -> None:
        try:
            if self._facts.forked():
                portal.last_call(self._session._end_after, exc)
            else:
                self._interruption.end_body()
                # What is saved last is taken in the caller's own thread.
                last = self._checkpointing.take_last(self._interruption.verdict.ends_as(exc))
                portal.last_call(self._session._end_with, exc, last)
        finally:
            self._recorder.leave()
        self._interruption.stop()

    def _interrupt(self, frame: FrameType | None) -> BaseException | None:
        """Interrupt the body by an error after a signal; the set-up and the end are left whole."""
        if self._entering:
            self._interruption.cancel_body()
            return None
        ending = (SessionManager._end_after.__code__, SessionManager.__exit__.__code__)
        while frame is not None:
            if frame.f_code in ending and frame.f_locals.get("self") is self:
                return None
            frame = frame.f_back
        return self._interruption.verdict.error

    def setup_directories(self) -> dict[str, str]:
        """Make the run's directories and own them; see `AsyncSessionManager`."""
        return portal.call(self._session.setup_directories)

    def setup_wandb(self) -> bool:
        """Start tracking the run with W&B; see `AsyncSessionManager`."""
        return portal.call(self._session.setup_wandb)

    def setup_trackers(self) -> dict[str, bool]:
        """Start the trackers that the config names; see `AsyncSessionManager`."""
        return portal.call(self._session.setup_trackers)

    def setup_remote_logging(self, backend: str | Tracker, **options: object) -> bool:
        """Start one more tracker on the run; see `AsyncSessionManager`."""
        return portal.call(self._session.setup_remote_logging, backend, **options)

    def save_effective_config(self) -> None:
        """Write `effective_config.json`, secrets hidden; see `AsyncSessionManager`."""
        portal.call(self._session.save_effective_config)

    def setup_seeding(self) -> None:
        """Seed the random generators; see `AsyncSessionManager`."""
        portal.call(self._session.setup_seeding)

    def log_session_info(
        self,
        logger_func: LoggerFunc,
        agent_info: Mapping[str, Any] | None = None,
        resumed_from_checkpoint: str | None = None,
        global_timestep: int = 0,
        total_episodes_completed: int = 0,
    ) -> None:
        """Introduce the session to a logger of the user's; see `AsyncSessionManager`."""
        portal.call(
            self._session.log_session_info,
            logger_func,
            agent_info,
            resumed_from_checkpoint,
            global_timestep,
            total_episodes_completed,
        )

    def log_session_start(self) -> None:
        """Append the start line to the training log; see `AsyncSessionManager`."""
        portal.call(self._session.log_session_start)

    def flush(self) -> None:
        """Wait until all that was logged before is durable; see `AsyncSessionManager`."""
        portal.call(self._session.flush)

    def finalize_session(self, status: FinalStatus | None = None) -> FinalStatus:
        """End the session; see `AsyncSessionManager`."""
        # Which exception is being handled is known in this thread alone.
        handled = self._session._handled_now()
        final = self._session._final(status, handled)
        try:
            last = self._checkpointing.take_last(final)
            return portal.last_call(self._session._finalize, final, handled, last)
        finally:
            self._interruption.stop()
