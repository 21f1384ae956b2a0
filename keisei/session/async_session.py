"""The life of a training run, step by step, for programs on an event loop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.lowlevel import checkpoint

from keisei._io import files
from keisei._io.loop import load_backend
from keisei._log import logger
from keisei.monitoring.phases import WAITING
from keisei.run.log_lines import info_lines
from keisei.run.status import FINAL, FinalStatus, Step, check_final, require
from keisei.session import callbacks
from keisei.session.callbacks import LoggerFunc
from keisei.session.checkpoint_methods import AsyncCheckpoints
from keisei.session.checkpointing import Checkpointing
from keisei.session.ending import Ending, OneStep
from keisei.session.facts import ConfigT, SessionFacts
from keisei.session.recorder import Recorder
from keisei.session.saving import Taken
from keisei.session.shutdown import Interruption, error_at_exit
from keisei.session.steps import Steps
from keisei.session.tracking import Tracking
from keisei.session.usage import Usage
from keisei.session.watching import Watching
from keisei.trackers.base import Tracker


class AsyncSessionManager(AsyncCheckpoints[ConfigT]):
    """The life of one training run, for programs on an event loop (asyncio, uvloop, trio).

    Use it as ``async with AsyncSessionManager(config) as session:``, or take the steps one by
    one. Nothing in it blocks the loop, and no tracker holds it longer than its deadline.

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
        self._facts = SessionFacts(config, args, run_name)
        self._one_step = OneStep(self._facts)
        self._recorder = Recorder()
        self._tracking = Tracking(self._facts, self._recorder.logged)
        self._checkpointing = Checkpointing(
            self._facts, self._recorder, lambda: self._tracking.longest_finish
        )
        self._interruption = Interruption(
            self._checkpointing.hold, self._facts.can_be_taken, self._recorder.stop.put
        )
        self._watching = Watching(self._facts.config, self._interruption)
        self._usage = Usage(self._facts, self._recorder, self._interruption)
        self._phases = self._usage.phases
        self._checkpointing.phases = self._phases
        self._watching.on_look = self._usage.tick
        self._ending = Ending(
            self._facts,
            self._tracking,
            self._recorder,
            self._one_step,
            self._interruption,
            self._watching,
            self._checkpointing,
            self._usage,
        )
        self._steps = Steps(self._facts, self._tracking, self._recorder, self._ending)
        self._entered = False
        # An error that was already being handled here is no news of how the body ends.
        self._handled_before = sys.exc_info()[1]
        level = logging.getLevelNamesMapping()[self._facts.config.logging.log_level.upper()]
        if logger.level != level:  # setting it costs, and sweeps, were it the same
            logger.setLevel(level)

    async def __aenter__(self) -> Self:
        """Take the set-up steps in their order; a failed one ends the session before it raises."""
        await load_backend()
        self._facts.enter()
        if self._facts.config.signals.handle:
            self.handle_signals()
        self._interruption.open_scope()
        self._recorder.enter(self._facts)
        try:
            await self._enter()
        except BaseException as exc:
            self._recorder.leave()
            if (left := self._interruption.leave(exc)) is not None and left is not exc:
                raise left from None
            raise
        self._entered = True
        return self

    async def _enter(self) -> None:
        try:
            await checkpoint()  # a thousand that are made at once give the loop back first
            if self._steps.fit_one_hop and self._has_own_steps():
                async with files.turn(), self._one_step:
                    await self._steps.take_all()
            else:
                await self._take_the_steps()
            if (
                not self._facts.config.tracking.wait
            ):  # last: what trackers compute would be in the way
                async with self._one_step:
                    if self._facts.status not in FINAL:
                        await self._tracking.begin()
            self._ending.entered()
        except BaseException as exc:
            await self._end_after(exc)
            raise

    async def _take_the_steps(self) -> None:
        self._steps.entering = True
        await self.setup_directories()
        if self._facts.config.tracking.wait:
            async with self._one_step:
                await self._tracking.begin()
            await self.setup_wandb()
            await self.setup_trackers()
        else:
            self._tracking.begun()
        await self.save_effective_config()
        await self.setup_seeding()
        await self.log_session_start()
        async with self._one_step:
            await self._steps.sync()

    def _has_own_steps(self) -> bool:
        """Check that no step was overridden or replaced; one that was is called by its name."""
        return [getattr(type(self), name) for name in _STEPS] == _OWN_STEPS

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the session with the truth about how the body ended; its error goes on."""
        left = exc
        try:
            await self._end_after(exc)
        except BaseException as cancelled:  # noqa: BLE001 - raised again below
            left = cancelled
        self._recorder.leave()
        left = self._interruption.leave(left)
        if left is not None and left is not exc:
            raise left from None

    async def _end_after(self, exc: BaseException | None) -> None:
        if self._facts.forked():
            logger.warning("run %s goes on in the process that has forked this one", self.run_name)
            return
        self._interruption.end_body()
        await self._end_with(
            exc, self._checkpointing.take_last(self._interruption.verdict.ends_as(exc))
        )

    async def _end_with(self, exc: BaseException | None, last: Taken | None) -> None:
        """End the session after its body, once what is to be saved last is saved."""
        status, reason = (
            self._interruption.verdict.ends_as(exc),
            self._interruption.verdict.reason(exc),
        )
        if status == "failed" and self._facts.status == "completed":
            text = "run %s stays recorded as completed: it ended before its block failed (%s)"
            logger.warning(text, self.run_name, reason)
        try:
            try:
                if last is not None:
                    await self._checkpointing.save_last(last)
            finally:
                await self._ending.end(status, reason)
        except anyio.get_cancelled_exc_class():
            if exc is None:
                raise
            # Otherwise the error that is on its way out tells more than the cancellation.

    async def setup_directories(self) -> dict[str, str]:
        """Make the run's directories and own them; a second call changes nothing.

        Returns:
            ``run_artifact_dir``, ``model_dir``, ``log_file_path``, ``eval_log_file_path``, as
            absolute paths.

        Raises:
            SessionInUseError: the run has a live owner, or may not be resumed.
            DirectorySetupError: a directory cannot be made or written.
        """
        facts = self._facts
        async with self._one_step:
            if facts.paths is None:
                require(Step.DIRECTORIES, facts.done, facts.status)
                await self._steps.claim()
            assert facts.paths is not None
            return facts.paths.as_dict()

    async def setup_wandb(self) -> bool:
        """Start tracking the run with W&B; its failures are one warning, and never raise.

        Returns:
            Whether W&B tracks this run: ``False`` where it is disabled or failed.

        Raises:
            NotReadyError: the directories are not set up.
        """
        async with self._one_step:
            if self._tracking.wandb_active is None:
                require(Step.WANDB, self._facts.done, self._facts.status)
            return await self._tracking.wandb()

    async def setup_trackers(self) -> dict[str, bool]:
        """Start the trackers that the config names; their failures are a warning each.

        Returns:
            By name, whether the tracker tracks the run by now. One that does not is tried again
            while the session lives, and gets then what was logged before.

        Raises:
            NotReadyError: the directories are not set up.
        """
        async with self._one_step:
            require(Step.TRACKERS, self._facts.done, self._facts.status)
            return await self._tracking.named()

    async def setup_remote_logging(self, backend: str | Tracker, **options: object) -> bool:
        """Start one more tracker on the run; its failures are one warning, and never raise.

        It gets all that the run has logged; where it fails it is tried again, with backoff.

        Args:
            backend: the name of an installed tracker (an entry point of the group
                ``keisei.trackers``), or a tracker.
            options: what the named tracker is made with. With ``tracker``, which is then the
                entry point, the name is one of your own: so two of a kind can track the run.

        Returns:
            Whether the tracker tracks this run by now.

        Raises:
            NotReadyError: the directories are not set up.
            TypeError: the tracker is neither a name nor a tracker.
        """
        async with self._one_step:
            require(Step.REMOTE, self._facts.done, self._facts.status)
            worker = await self._tracking.add(backend, options)
        # Those that are asked for at the same time are waited for side by side.
        return worker is not None and await self._tracking.wait_for(worker)

    async def save_effective_config(self) -> None:
        """Write the config as it is now to `effective_config.json`, whole or not at all.

        Secrets are hidden.

        Raises:
            NotReadyError: the directories are not set up.
            ConfigSaveError: the config cannot be serialised or written.
        """
        facts = self._facts
        async with self._one_step:
            require(Step.CONFIG, facts.done, facts.status)
            await self._steps.save_config()

    async def setup_seeding(self) -> None:
        """Seed the random generators from ``env.seed``; without one, nothing is done."""
        async with self._one_step:
            require(Step.SEEDING, self._facts.done, self._facts.status)
            self._steps.seed()

    async def log_session_info(
        self,
        logger_func: LoggerFunc,
        agent_info: Mapping[str, Any] | None = None,
        resumed_from_checkpoint: str | None = None,
        global_timestep: int = 0,
        total_episodes_completed: int = 0,
    ) -> None:
        """Introduce the session, a line for each subject, to a logger of the user's.

        Args:
            logger_func: called with each line, on the loop; may be async. One that raises, or
                takes over 10 s, is counted in the summary and does not stop the session.
            agent_info: the agent's ``type`` and ``name``.
            resumed_from_checkpoint: the checkpoint's path, or ``None`` at a fresh start.
            global_timestep: the environment steps taken so far.
            total_episodes_completed: the episodes completed.

        Raises:
            NotReadyError: the directories are not set up.
            TypeError: ``agent_info`` is no mapping.
        """
        known = self._tracking.records().get("wandb") if self._tracking.wandb_active else None
        lines = info_lines(
            self._facts.config,
            self.run_name,
            known.url if known is not None else None,
            self._paths("log_session_info()"),
            agent_info,
            resumed_from_checkpoint,
            global_timestep,
            total_episodes_completed,
            self._facts.resumes,
        )
        self._facts.logger_errors += await callbacks.tell(logger_func, lines)

    async def log_session_start(self) -> None:
        """Append the start line to the training log; a second call does nothing.

        An I/O failure is a warning.

        Raises:
            NotReadyError: the directories are not set up.
        """
        facts = self._facts
        async with self._one_step:
            require(Step.START, facts.done, facts.status)
            if Step.START in facts.done:
                return
            await self._steps.log_start()

    async def flush(self) -> None:
        """Wait until all that was logged before is as durable as ``journal.durability`` says.

        Raises:
            JournalError: it cannot be written now; it is kept, and tried again.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended, and has waited for it.
        """
        with self._phases.own(WAITING):
            await self._flush()

    async def finalize_session(self, status: FinalStatus | None = None) -> FinalStatus:
        """End the session: the local truth first, then all trackers, each within its own timeout.

        It may be called before any set-up, twice, by many tasks at once and under cancellation:
        the first call ends the session, and every caller sees that one end. No failure of a
        tracker or a disk is raised; each is logged.

        Args:
            status: how the run ended; without it, the exception that is being handled decides
                (`failed` or `cancelled`), and where there is none the run is `completed`.

        Returns:
            How the run ended.

        Raises:
            InvalidStatusError: a run cannot end with that status.
        """
        handled = self._handled_now()
        final = self._final(status, handled)
        return await self._finalize(final, handled, self._checkpointing.take_last(final))

    def _final(self, status: FinalStatus | None, handled: BaseException | None) -> FinalStatus:
        """Return how the session ends, by a status or the exception that the caller is handling."""
        self._facts.check_process("finalize_session()")
        return (
            self._interruption.verdict.ends_as(handled) if status is None else check_final(status)
        )

    async def _finalize(
        self, final: FinalStatus, handled: BaseException | None, last: Taken | None
    ) -> FinalStatus:
        self._handled_before = None
        reason = None if final == "completed" else self._interruption.verdict.reason(handled)
        try:
            if last is not None:
                await self._checkpointing.save_last(last)
        finally:
            ended = await self._ending.end(final, reason)
        return ended

    def _handled_now(self) -> BaseException | None:
        """Return the exception that the caller is handling, if it is news since the session.

        In a hook of the interpreter's exit it is the one that has ended the program.
        """
        handled = sys.exc_info()[1] or error_at_exit()
        return None if handled is self._handled_before else handled


_STEPS = [
    str(step)
    for step in (Step.DIRECTORIES, Step.WANDB, Step.TRACKERS, Step.CONFIG, Step.SEEDING, Step.START)
]
_OWN_STEPS = [getattr(AsyncSessionManager, name) for name in _STEPS]
