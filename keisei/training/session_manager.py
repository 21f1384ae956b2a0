"""The life of a training run, step by step: one face for programs on a loop, one for scripts."""

from __future__ import annotations

import inspect
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.lowlevel import checkpoint

from keisei._io import files, portal
from keisei._io.offload import whole
from keisei.errors import ConfigSaveError, DirectorySetupError, KeiseiError, quoted
from keisei.run import identity
from keisei.run.record import end_line, info_lines, start_line
from keisei.run.state import FinalStatus, Step, check_final, require, status_after
from keisei.run.view import ConfigT, SessionFacts, SessionView
from keisei.trackers import lane
from keisei.trackers.base import RunInfo, Tracker, TrackerRun
from keisei.training import directories, utils
from keisei.training.directories import OwnedRun

logger = logging.getLogger("keisei")

LOGGER_TIMEOUT = 10.0

LoggerFunc = Callable[[str], object]


class AsyncSessionManager(SessionView[ConfigT]):
    """The life of one training run, for programs on an event loop (asyncio, uvloop, trio).

    Use it as ``async with AsyncSessionManager(config) as session:``, or take the steps one by
    one. Nothing in it blocks the loop, and no tracker holds it longer than its deadline.

    Args:
        config: an `AppConfig`, or a model derived from it.
        args: the program's arguments (a namespace, any object, a mapping), of which only
            ``run_name`` is read.
        run_name: the run's name; without it, ``args``, the config or a generated one decides.

    Raises:
        InvalidRunNameError: the name is not a safe one.
    """

    def __init__(self, config: ConfigT, args: object = None, run_name: str | None = None) -> None:
        self._facts = SessionFacts(
            config=config,
            args=args,
            run_name=identity.resolve_run_name(run_name, args, config),
            session_id=identity.new_session_id(),
        )
        self._lock: anyio.Lock | None = None
        self._trackers = lane.Trackers(self._facts.run_name)
        self._facts.trackers = self._trackers.records
        self._ended: anyio.Event | None = None
        self._owned: OwnedRun | None = None
        self._config_text: str | None = None
        # An error that was already being handled here is no news of how the body ends.
        self._handled_before = sys.exc_info()[1]
        level = logging.getLevelNamesMapping()[config.logging.log_level.upper()]
        if logger.level != level:  # setting it costs, and sweeps, were it the same
            logger.setLevel(level)

    async def __aenter__(self) -> Self:
        """Take the set-up steps in their order; a failed one ends the session before it raises."""
        try:
            await checkpoint()  # a thousand that are made at once give the loop back first
            await self.setup_directories()
            await self.setup_wandb()
            await self.save_effective_config()
            await self.setup_seeding()
            await self.log_session_start()
        except BaseException as exc:
            await self._end_after(exc)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the session with the truth about how the body ended; its error goes on."""
        await self._end_after(exc)

    async def _end_after(self, exc: BaseException | None) -> None:
        try:
            await self.finalize_session(status_after(exc))
        except anyio.get_cancelled_exc_class():
            if exc is None:
                raise
            # Otherwise the error that is on its way out tells more than the cancellation.

    def _one_step(self) -> anyio.Lock:
        """Let one step at a time work. Made in the loop: a lock belongs to the loop's backend."""
        if self._lock is None:
            self._lock = anyio.Lock(fast_acquire=True)
        return self._lock

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
        async with self._one_step():
            if facts.paths is None:
                require(Step.DIRECTORIES, facts.done, facts.status)
                try:
                    await files.in_turn(self._claim)
                except KeiseiError:
                    raise
                except (OSError, RuntimeError) as exc:  # no thread left, or a disk that hangs
                    problem = f"cannot set up the directories of run {facts.run_name}: {exc}"
                    raise DirectorySetupError(problem) from exc
            assert facts.paths is not None
            return facts.paths.as_dict()

    async def _claim(self) -> None:
        facts = self._facts
        owned = await utils.setup_directories(facts.config, facts.run_name, facts.session_id)
        self._owned = owned
        facts.run_name = self._trackers.run_name = owned.record.run_name
        facts.session_id = owned.record.session_id
        facts.attempt = owned.record.attempt
        facts.paths = owned.paths
        facts.fallback_reason = owned.fallback_reason
        facts.started_at = owned.record.started_at
        facts.started = time.monotonic()
        if facts.status == "created":  # or another task has ended the session meanwhile
            facts.status = "running"
        facts.done.add(Step.DIRECTORIES)

    async def setup_wandb(self) -> bool:
        """Start tracking the run with W&B; its failures are one warning, and never raise.

        Returns:
            Whether W&B tracks this run: ``False`` where it is disabled or failed.

        Raises:
            NotReadyError: the directories are not set up.
        """
        facts = self._facts
        async with self._one_step():
            if facts.wandb_active is None:
                require(Step.WANDB, facts.done, facts.status)
                facts.wandb_active = await self._start_tracker("wandb", self._start_wandb)
                facts.done.add(Step.WANDB)
                if facts.wandb_active:
                    native: Any = self._trackers.runs["wandb"].native
                    facts.wandb_run = native
            return facts.wandb_active

    async def _start_wandb(self) -> TrackerRun | None:
        return await utils.setup_wandb(self._facts.config, self._run_info())

    async def setup_remote_logging(self, backend: str | Tracker, **options: object) -> bool:
        """Start one more tracker on the run; its failures are one warning, and never raise.

        Args:
            backend: the name of an installed tracker (an entry point of the group
                ``keisei.trackers``), or a tracker.
            options: what the named tracker is made with.

        Returns:
            Whether the tracker tracks this run.

        Raises:
            NotReadyError: the directories are not set up.
        """
        name = backend if isinstance(backend, str) else backend.name

        async def start() -> TrackerRun:
            if isinstance(backend, str):
                tracker = await lane.load_tracker(backend, options)
            else:
                tracker = backend
            info = self._run_info()
            start = partial(tracker.start, info)
            return await lane.start_within(tracker.start_timeout, start, name)

        async with self._one_step():
            require(Step.WANDB, self._facts.done, self._facts.status)
            return name in self._trackers.runs or await self._start_tracker(name, start)

    def _run_info(self) -> RunInfo:
        facts = self._facts
        assert facts.paths is not None
        return RunInfo(
            session_id=facts.session_id,
            run_name=facts.run_name,
            attempt=facts.attempt,
            directory=facts.paths.run_artifact_dir,
            config_text=self._serialized(),
        )

    async def _start_tracker(
        self, name: str, start: Callable[[], Awaitable[TrackerRun | None]]
    ) -> bool:
        """Start a tracker, and note it in the session's record."""
        started = await self._trackers.start(name, start)
        if started:
            try:
                assert self._owned is not None
                await self._owned.update(trackers=dict(self._trackers.records))
            except (OSError, RuntimeError) as exc:
                logger.warning("the record of run %s cannot be written: %s", self.run_name, exc)
        return started

    async def save_effective_config(self) -> None:
        """Write `effective_config.json`, whole or not at all, secrets hidden.

        Raises:
            NotReadyError: the directories are not set up.
            ConfigSaveError: the config cannot be serialised or written.
        """
        facts = self._facts
        async with self._one_step():
            require(Step.CONFIG, facts.done, facts.status)
            assert self._owned is not None
            path = quoted(self._owned.paths.config_path, 300)
            try:
                text = self._serialized()
            except Exception as exc:  # noqa: BLE001 - the user's own serializers
                problem = f"{path}: the config has no JSON form ({lane.describe(exc)})"
                raise ConfigSaveError(problem) from None
            try:
                await self._owned.save_config(text)
            except (OSError, RuntimeError) as exc:
                reason = getattr(exc, "strerror", None) or exc
                raise ConfigSaveError(
                    f"cannot write {path}: {reason}. The old file, if any, is as it "
                    "was; free or fix that place and call save_effective_config() again."
                ) from exc
            facts.done.add(Step.CONFIG)

    def _serialized(self) -> str:
        if self._config_text is None:
            self._config_text = utils.serialize_config(self._facts.config)
        return self._config_text

    async def setup_seeding(self) -> None:
        """Seed the random generators from ``env.seed``; without one, nothing is done."""
        facts = self._facts
        async with self._one_step():
            require(Step.SEEDING, facts.done, facts.status)
            facts.seeded = utils.setup_seeding(facts.config)
            facts.done.add(Step.SEEDING)

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
            total_episodes_completed: the episodes completed so far.

        Raises:
            NotReadyError: the directories are not set up.
        """
        known = self._facts.trackers.get("wandb") if self._facts.wandb_active else None
        for line in info_lines(
            self.config,
            self.run_name,
            known.url if known is not None else None,
            self._paths("log_session_info()"),
            agent_info,
            resumed_from_checkpoint,
            global_timestep,
            total_episodes_completed,
        ):
            try:
                with anyio.fail_after(LOGGER_TIMEOUT):
                    outcome = logger_func(line)
                    if inspect.isawaitable(outcome):
                        await outcome
            except Exception as exc:  # noqa: BLE001 - foreign code: no logger may stop the training
                if not self._facts.logger_errors:
                    logger.warning(
                        "logger_func failed (%s); counted, and not said again", lane.describe(exc)
                    )
                self._facts.logger_errors += 1

    async def log_session_start(self) -> None:
        """Append the start line to the training log; a second call does nothing.

        An I/O failure is a warning.

        Raises:
            NotReadyError: the directories are not set up.
        """
        facts = self._facts
        async with self._one_step():
            require(Step.START, facts.done, facts.status)
            if Step.START in facts.done:
                return
            assert self._owned is not None
            line = start_line(directories.now(), facts.run_name, facts.session_id, facts.attempt)
            try:
                await self._owned.log(line)
            except (OSError, RuntimeError) as exc:
                logger.warning("the start of run %s cannot be logged: %s", facts.run_name, exc)
            facts.done.add(Step.START)

    async def finalize_session(self, status: FinalStatus | None = None) -> FinalStatus:
        """End the session: the local truth first, the trackers last, all under one deadline.

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
        facts = self._facts
        final = self._status_now() if status is None else check_final(status)
        timeout = facts.config.wandb.finish_timeout
        if self._ended is None:
            self._ended = anyio.Event()
            facts.status = final
            self._trackers.stop_starting()
            await self._end(final, self._ended, timeout)
        else:
            with anyio.move_on_after(files.FILE_TIMEOUT + timeout):
                await self._ended.wait()
        return check_final(facts.status)

    def _status_now(self) -> FinalStatus:
        """Tell how the run ends from the exception that the caller is handling."""
        handled = sys.exc_info()[1]
        return status_after(None if handled is self._handled_before else handled)

    async def _end(self, final: FinalStatus, ended: anyio.Event, timeout: float) -> None:
        """Record the end here, then tell the trackers; a cancellation waits for both."""
        self._handled_before = None
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
                if self._trackers.runs:
                    await self._whole(partial(self._end_trackers, final, timeout), timeout)
            finally:
                ended.set()

    async def _whole(self, work: Callable[[], Awaitable[None]], timeout: float) -> None:
        try:
            await whole(work, timeout=timeout)
        except TimeoutError:
            logger.error("the end of run %s was not recorded in time", self.run_name)

    async def _record_end(self, final: FinalStatus) -> None:
        facts = self._facts
        async with self._one_step():
            facts.duration_s = facts.elapsed()
            now = directories.now()
            line = end_line(now, facts.run_name, final, facts.duration_s or 0.0)
            await self._update_at_end(
                line=line, status=final, ended_at=now, duration_s=facts.duration_s
            )

    async def _end_trackers(self, final: FinalStatus, timeout: float) -> None:
        # A little before the deadline, so that what came of it can be recorded.
        await self._trackers.finish(final, timeout - min(0.1, timeout / 10))
        await self._update_at_end(trackers=dict(self._trackers.records))

    async def _update_at_end(self, *, line: str | None = None, **changes: object) -> None:
        if self._owned is not None:
            try:
                await self._owned.update(line=line, **changes)
            except (OSError, RuntimeError) as exc:
                logger.error("the end of run %s cannot be recorded: %s", self.run_name, exc)


class SessionManager(SessionView[ConfigT]):
    """The life of one training run, for scripts, threads and notebooks: the blocking face.

    Use it as ``with SessionManager(config) as session:``, or take the steps one by one. Each
    method does what its namesake of `AsyncSessionManager` does, and waits for it.

    Args:
        config: an `AppConfig`, or a model derived from it.
        args: the program's arguments (a namespace, any object, a mapping), of which only
            ``run_name`` is read.
        run_name: the run's name; without it, ``args``, the config or a generated one decides.

    Raises:
        InvalidRunNameError: the name is not a safe one.
    """

    def __init__(self, config: ConfigT, args: object = None, run_name: str | None = None) -> None:
        self._session = AsyncSessionManager(config, args, run_name)
        self._facts = self._session._facts

    def __enter__(self) -> Self:
        """Take the set-up steps in their order; a failed one ends the session before it raises."""
        portal.call(self._session.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the session with the truth about how the body ended; its error goes on."""
        portal.call(self._session.__aexit__, exc_type, exc, traceback)

    def setup_directories(self) -> dict[str, str]:
        """Make the run's directories and own them; see `AsyncSessionManager`."""
        return portal.call(self._session.setup_directories)

    def setup_wandb(self) -> bool:
        """Start tracking the run with W&B; see `AsyncSessionManager`."""
        return portal.call(self._session.setup_wandb)

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

    def finalize_session(self, status: FinalStatus | None = None) -> FinalStatus:
        """End the session; see `AsyncSessionManager`."""
        # Which exception is being handled is known in this thread alone.
        return portal.call(self._session.finalize_session, status or self._session._status_now())
