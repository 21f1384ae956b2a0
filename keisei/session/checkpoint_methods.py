"""What a session offers for checkpoints, on both faces."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal

import anyio
from anyio.lowlevel import checkpoint

from keisei._io import files, portal
from keisei._log import logger
from keisei.checkpoints.values import Checkpoint, Restored
from keisei.config.schema import KeepBest
from keisei.distributed.meeting import LOOK
from keisei.errors import CheckpointError, describe
from keisei.session.checkpointing import Checkpointing, WhenBusy
from keisei.session.facts import ConfigT
from keisei.session.savable import AutoState, State
from keisei.session.stopping import SessionStopping
from keisei.session.watching import Watching


class _FromConfig(Enum):
    CONFIG = "the config's"

    def __repr__(self) -> str:
        return "CONFIG"


CONFIG: Final = _FromConfig.CONFIG
FromConfig = Literal[_FromConfig.CONFIG]


class SessionCheckpoints(SessionStopping[ConfigT]):
    """What of a session's checkpoints needs no waiting, and so is the same on both faces."""

    _checkpointing: Checkpointing
    _watching: Watching

    def _decided(self) -> bool | None:
        """Return whether the training goes on from a safe point; ``None``: the ranks decide.

        It is decided once for a safe point: one at which a preemption comes is passed, for this is
        what the other ranks are told of it.
        """
        if self._watching.meeting is not None and self._interruption.holds:
            return None
        self._checkpointing.schedule.goes_on = self._watching.meeting is not None
        return self._checkpointing.schedule.goes_on

    async def _goes_on(self, step: int) -> bool:
        """Wait for the other ranks of a preempted run; return whether one of them is further."""
        meeting, decision = self._watching.meeting, "wait"
        while meeting is not None and self._interruption.holds and decision == "wait":
            try:
                decision = await files.in_thread(meeting.look, int(step))
            except OSError as exc:
                logger.warning("the other ranks are not waited for: %s", describe(exc))
                break
            if decision == "wait":
                await anyio.sleep(LOOK)
        self._checkpointing.schedule.goes_on = decision == "go on"
        return decision == "go on"

    def setup_auto_checkpointing(
        self,
        interval: int | FromConfig | None = CONFIG,
        *,
        state: AutoState | None,
        at_steps: list[int] | FromConfig = CONFIG,
        every_seconds: float | FromConfig | None = CONFIG,
        at_end: bool | FromConfig = CONFIG,
        on_preemption: bool | FromConfig = CONFIG,
        keep_last: int | FromConfig | None = CONFIG,
        keep_best: KeepBest | FromConfig | None = CONFIG,
        keep_every: int | FromConfig | None = CONFIG,
        copy: bool = True,
    ) -> None:
        """Save by itself from now on, where `checkpoint_if_due` is called, and keep what is told.

        What is not given is the config's, of its section `checkpoints`. From now on every
        checkpoint of the run that is not to be kept is removed after the next save, those of
        `save_checkpoint` too; never the newest, and never one that is being read.

        Args:
            interval: save at each multiple of so many steps (config: 1000); ``None`` for none.
            state: what is saved: a mapping that the program keeps up to date, a function that
                returns one, called at the safe point on the caller's thread, or a function with
                one parameter that writes files into that directory, called on another thread.
            at_steps: save at these steps, too.
            every_seconds: save where the last save is so long ago, too.
            at_end: save when the run is completed, where the last step is not saved yet.
            on_preemption: save when the run is preempted, before it ends.
            keep_last: how many of the newest are kept (config: 3); ``None`` keeps all.
            keep_best: keep the best by a metric, too, by the value of it that was logged last.
            keep_every: keep those at the multiples of so many steps, too.
            copy: whether the arrays are copied at the safe point.

        Raises:
            ConfigError: one of them does not fit.
            TypeError: the state is no mapping and no such function.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        asked: dict[str, object] = {
            "interval": interval,
            "at_steps": at_steps,
            "every_seconds": every_seconds,
            "at_end": at_end,
            "on_preemption": on_preemption,
            "keep_last": keep_last,
            "keep_best": keep_best,
            "keep_every": keep_every,
        }
        given = {name: value for name, value in asked.items() if value is not CONFIG}
        self._checkpointing.set_up(state, given, copy=copy)

    def get_session_summary(self) -> dict[str, Any]:
        """Return what is known of the session as plain data; what is not set up yet is ``None``."""
        return {**super().get_session_summary(), "checkpoints": self._checkpointing.summary()}


class AsyncCheckpoints(SessionCheckpoints[ConfigT]):
    """A session's checkpoints, for programs on an event loop."""

    async def save_checkpoint(
        self,
        state: State | None,
        step: int,
        metrics: Mapping[str, object] | None = None,
        *,
        copy: bool = True,
        when_busy: WhenBusy = "wait",
    ) -> Checkpoint | None:
        """Commit a checkpoint, whole or not at all, and return it.

        The loop is held for the copy of the state alone, which is made at the call. A step that
        is saved already, with the same content, is returned as it is. A caller who is cancelled
        leaves the save of a copy to its thread; one of what the program may change is given up.
        Of several ranks each has to call this for the same step, with what is its own: it is one
        checkpoint, and all of them wait until it is committed.

        Args:
            state: a mapping, nested at will, of arrays, numbers, texts, bytes, lists and ``None``;
                or a function with one parameter, a `pathlib.Path`, that writes files into that
                directory, called on another thread. On a rank above 0 it may be ``None``: that
                rank has nothing of its own, and gets rank 0's when it is restored.
            step: the training step that the run goes on after when it is restored.
            metrics: numbers by name to keep with it.
            copy: whether the arrays are copied; without, they must not change until it returns.
            when_busy: what to do where another save is under way: ``wait`` for it, or ``skip``.

        Returns:
            The checkpoint; ``None`` where it was skipped.

        Raises:
            CheckpointError: it cannot be saved, or the step is saved already with other content;
                the earlier ones are as they were.
            TypeError: the state, the step or a metric is none.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        saves = self._checkpointing
        if saves.is_skipped(when_busy):
            return None
        return await saves.save(saves.take(state, step, metrics, copy=copy))

    async def save_final_model(
        self, state: State | None, *, metrics: Mapping[str, object] | None = None, copy: bool = True
    ) -> Checkpoint:
        """Commit the run's final model, as `save_checkpoint` does; an earlier one is replaced.

        Args:
            state: what is saved; see `save_checkpoint`.
            metrics: numbers by name to keep with it.
            copy: whether the arrays are copied; without, they must not change until it returns.

        Raises:
            CheckpointError: it cannot be saved; the earlier one is as it was.
            TypeError: the state or a metric is none.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        saves = self._checkpointing
        return await saves.save(saves.take_final(state, metrics, copy=copy))

    async def checkpoint_if_due(self, step: int) -> Checkpoint | None:
        """Save where the policy says so; call it at each safe point of the training.

        A safe point is where the state is whole, as the next attempt is to find it. Where nothing
        is due this returns at once. A run that is preempted is saved here, and then its body is
        cancelled.

        Args:
            step: the training step that is done.

        Returns:
            The checkpoint; ``None`` where none was due.

        Raises:
            CheckpointError: it cannot be saved; the earlier ones are as they were.
            TypeError: the step is no whole number, or the state none.
            NotReadyError: there is no policy, or no directory yet.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        saves = self._checkpointing
        schedule = saves.schedule
        if type(step) is int:
            schedule.reached = step
            if step < schedule.due_step and (
                schedule.due_time is None or time.monotonic() < schedule.due_time
            ):
                schedule.step = step
                return None
        saved = None
        if (goes_on := self._decided()) is None:
            goes_on = await self._goes_on(step)
        try:
            if (taken := saves.take_due(step)) is not None:
                saved = await saves.save(taken)
        except CheckpointError as exc:
            if not self._interruption.holds:
                raise
            saves.not_saved(schedule.step, exc)
        if self._interruption.holds and not goes_on:
            error = self._interruption.at_safe_point()
            await checkpoint()
            if error is not None and not self._interruption.body.is_known:
                raise error  # on trio, without a scope
        return saved

    async def restore_checkpoint(
        self,
        which: str | int | os.PathLike[str] = "latest",
        *,
        resume: bool | None = None,
        shard: int | None = None,
    ) -> Restored | None:
        """Read a checkpoint back, verified to the last bit.

        One that does not verify is logged and set aside, and the next older one is read. The
        first one that an attempt restores, before it logs a row, is what the run goes on from:
        what was logged and saved after it is superseded, and the random states of Python, numpy
        and torch are what they were. Any later one is only read. Of several ranks each has to
        call this: rank 0 chooses the checkpoint that the first call restores, and the others wait
        for that.

        Args:
            which: ``"latest"``, ``"best"``, a step, or a checkpoint's path.
            resume: whether the run goes on from it; unset, as said above.
            shard: the rank whose shard is read, of a checkpoint of several ranks; unset, this
                rank's own.

        Returns:
            What was saved; ``None`` where the run has no checkpoint.

        Raises:
            CheckpointError: none verifies, there is none of that step or path, or it cannot be
                read.
            WorldSizeError: another number of ranks has saved it, each with a state of its own.
            NotReadyError: the directories are not set up.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        return await self._checkpointing.restore(which, resume, shard)


class BlockingCheckpoints(SessionCheckpoints[ConfigT]):
    """A session's checkpoints, for scripts, threads and notebooks."""

    def save_checkpoint(
        self,
        state: State | None,
        step: int,
        metrics: Mapping[str, object] | None = None,
        *,
        copy: bool = True,
        when_busy: WhenBusy = "wait",
    ) -> Checkpoint | None:
        """Commit a checkpoint, whole or not at all; see `AsyncSessionManager`."""
        saves = self._checkpointing
        if saves.is_skipped(when_busy):
            return None
        return portal.call(saves.save, saves.take(state, step, metrics, copy=copy))

    def save_final_model(
        self, state: State | None, *, metrics: Mapping[str, object] | None = None, copy: bool = True
    ) -> Checkpoint:
        """Commit the run's final model; see `AsyncSessionManager`."""
        saves = self._checkpointing
        return portal.call(saves.save, saves.take_final(state, metrics, copy=copy))

    def checkpoint_if_due(self, step: int) -> Checkpoint | None:
        """Save where the policy says so; see `AsyncSessionManager`.

        A run that is preempted is saved here, and then what leaves the block is raised.
        """
        saves = self._checkpointing
        schedule = saves.schedule
        if type(step) is int:
            schedule.reached = step
            if step < schedule.due_step and (
                schedule.due_time is None or time.monotonic() < schedule.due_time
            ):
                schedule.step = step
                return None
        saved = None
        if (goes_on := self._decided()) is None:
            goes_on = portal.call(self._goes_on, step)
        try:
            if (taken := saves.take_due(step)) is not None:
                saved = portal.call(saves.save, taken)
        except CheckpointError as exc:
            if not self._interruption.holds:
                raise
            saves.not_saved(schedule.step, exc)
        if goes_on or not self._interruption.holds:
            return saved
        if (error := self._interruption.at_safe_point()) is not None:
            raise error
        return saved

    def restore_checkpoint(
        self,
        which: str | int | os.PathLike[str] = "latest",
        *,
        resume: bool | None = None,
        shard: int | None = None,
    ) -> Restored | None:
        """Read a checkpoint back, verified to the last bit; see `AsyncSessionManager`."""
        return portal.call(self._checkpointing.restore, which, resume, shard)
