"""The checkpoints of one session: one save at a time, and what was saved.

What is saved is taken at the call, on the caller's thread; a `Saver` does the rest on another
thread, to its end. A caller who is cancelled leaves a save of what was copied to it; one of what
the program may change is given up, and waited for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal, get_args

import anyio
from pydantic import ValidationError

from keisei._io import files
from keisei._io.loop import load_backend
from keisei._io.offload import Work, patiently
from keisei._log import logger
from keisei.checkpoints import random_states
from keisei.checkpoints.packing import pack
from keisei.checkpoints.values import Checkpoint, Restored
from keisei.config.schema import CheckpointsConfig
from keisei.errors import (
    CheckpointError,
    ConfigError,
    KeiseiError,
    NotReadyError,
    describe,
    quoted,
)
from keisei.monitoring.phases import CHECKPOINT
from keisei.run.status import FINAL, FinalStatus, Step, require
from keisei.session import savable
from keisei.session.facts import SessionFacts
from keisei.session.permit import Permit
from keisei.session.phases import Phases
from keisei.session.recorder import Recorder
from keisei.session.restoring import Restorer
from keisei.session.savable import AutoState, State
from keisei.session.saving import Saved, Saver, Taken
from keisei.session.schedule import ALWAYS, Schedule
from keisei.session.together import Together

COPIES_TIMEOUT = 30.0  # seconds that a session's end waits for copies at a URL
WhenBusy = Literal["wait", "skip"]
Which = str | int | os.PathLike[str]


class Checkpointing:
    """The checkpoints of one session.

    Args:
        facts: what is known of the session.
        recorder: what it records with.
        finish_time: returns how long the session's trackers may take at the end, in seconds.

    Attributes:
        schedule: when the session saves by itself.
        phases: the session's phases.
    """

    def __init__(
        self, facts: SessionFacts[Any], recorder: Recorder, finish_time: Callable[[], float]
    ) -> None:
        self.schedule, self.phases = Schedule(), Phases(recorder)
        self._facts, self._recorder, self._finish_time = facts, recorder, finish_time
        self._together = Together(facts)
        self._saver = Saver(facts, recorder, self._together)
        self._restorer = Restorer(facts, recorder, self._saver, self.schedule, self._together)
        self._state: AutoState | None = {}
        self._copy = True
        self._lock: anyio.Lock | None = None
        self._work: Work[Any] | None = None
        self._saving: int | None = None  # the step of the save that is under way
        self._permit = Permit()
        self._count = self._failed = 0
        self._latest: Checkpoint | None = None
        self._best: Checkpoint | None = None
        self._slowest = 0.0

    def set_up(self, state: AutoState | None, given: Mapping[str, object], *, copy: bool) -> None:
        """Save by itself from now on.

        Args:
            state: what is saved.
            given: the fields of the policy that the program has chosen; the rest is the config's.
            copy: whether the arrays are copied.

        Raises:
            ConfigError: a field does not fit.
            TypeError: the state is none.
            SessionEndedError: the session has ended.
        """
        self._check(Step.AUTO)
        if state is not None or self._together.leads:  # another rank may have nothing of its own
            savable.check_auto_state(state)
        config = self._facts.config.checkpoints
        fields = {name: getattr(config, name) for name in type(config).model_fields}
        try:
            chosen = CheckpointsConfig.model_validate({**fields, **given})
        except ValidationError as exc:
            error = exc.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, error["loc"]))
            raise ConfigError(f"setup_auto_checkpointing(): {where}: {error['msg']}") from None
        if self._together.shared and chosen.every_seconds is not None:
            raise ConfigError(
                "checkpoints.every_seconds: the clocks of several ranks would choose different "
                "steps; set interval or at_steps in its place"
            )
        self._state, self._copy = state, copy
        self._recorder.watched.name = chosen.keep_best.metric if chosen.keep_best else None
        self.schedule.policy = chosen
        self.schedule.plan()

    def is_skipped(self, when_busy: str) -> bool:
        """Return whether a save is skipped, because another one is under way.

        Raises:
            ValueError: there is no such choice.
        """
        if when_busy not in get_args(WhenBusy):
            raise ValueError(f"when_busy must be one of {get_args(WhenBusy)}: {quoted(when_busy)}")
        self._check(Step.SAVE)
        if when_busy == "skip" and self._together.shared:
            raise ValueError(
                "when_busy='skip': some ranks would skip what others wait for; leave it out"
            )
        locked = self._lock is not None and self._lock.locked()
        busy = locked or (self._work is not None and not self._work.ended)
        return when_busy == "skip" and busy

    def take(
        self, state: State | None, step: object, metrics: Mapping[str, object] | None, *, copy: bool
    ) -> Taken:
        """Return what is to be saved as it is now; on the caller's thread.

        Raises:
            TypeError: the state, the step or a metric is none.
            CheckpointError: the state holds what cannot be saved.
        """
        self._check(Step.SAVE)
        return self._taken(state, savable.whole_step(step), metrics, copy=copy)

    def take_final(
        self, state: State | None, metrics: Mapping[str, object] | None, *, copy: bool
    ) -> Taken:
        """Return what is to be saved as the final model; see `take`."""
        self._check(Step.FINAL_MODEL)
        return self._taken(state, None, metrics, copy=copy)

    def take_due(self, step: object) -> Taken | None:
        """Return what a safe point has to save; on the caller's thread.

        Returns:
            ``None`` where nothing is due.

        Raises:
            NotReadyError: there is no policy, or no directory yet.
        """
        self._check(Step.IF_DUE)
        if self.schedule.policy is None:
            raise NotReadyError(
                "checkpoint_if_due() needs a policy: call setup_auto_checkpointing() first"
            )
        now = self.schedule.reached = savable.whole_step(step)
        return self._taken_now(now) if self.schedule.is_due(now) else None

    def take_last(self, status: FinalStatus) -> Taken | None:
        """Return what the end has to save; on the caller's thread. What fails is logged.

        Args:
            status: how the session ends.
        """
        if status in ("preempted", "cancelled") and self._together.shared:
            return None  # the body was cut off, on each rank elsewhere
        step = self.schedule.due_at_end(status)
        if step is None or self._facts.status in FINAL or self._facts.paths is None:
            return None
        if step == self._saving:  # the caller has gone, and the end waits for it
            return None
        try:
            taken = self._taken_now(step)
        except Exception as exc:  # noqa: BLE001 - the program's own function, too
            self._failed += 1
            self.not_saved(step, exc)
            return None
        # A body that was cut off has logged what its next attempt will log again.
        return taken if status == "completed" else taken._replace(position=None)

    def _taken_now(self, step: int) -> Taken:
        may_be_none = not self._together.leads
        state = savable.taken_now(self._state, may_be_none=may_be_none)
        metrics = self._recorder.watched.now()
        return self._taken(state, step, metrics, copy=self._copy)._replace(automatic=True)

    def _taken(
        self,
        state: State | None,
        step: int | None,
        metrics: Mapping[str, object] | None,
        *,
        copy: bool,
    ) -> Taken:
        saves = self._together.counted(step)
        if state is not None or self._together.leads:  # another rank may have nothing of its own
            savable.check_state(state)
        with self.phases.own(CHECKPOINT):
            content = pack(state, copy=copy) if isinstance(state, Mapping) else state
        return Taken(
            step,
            content,
            copy and not callable(state),
            savable.flat_metrics(metrics),
            self._recorder.position(),
            random_states.take(),
            saves=saves,
        )

    async def save(self, taken: Taken) -> Checkpoint:
        """Commit what was taken, after those that were before it.

        Raises:
            CheckpointError: it cannot be written, or the step exists with other content.
            SessionEndedError: the session has ended before its turn came.
        """
        permit = Permit()
        run = partial(self._save, taken, permit)
        with self.phases.own(CHECKPOINT):
            saved: Saved = await self._in_turn(run, permit, Step.SAVE, is_copy=taken.is_copy)
        return saved.checkpoint

    def _save(self, taken: Taken, permit: Permit) -> Saved:
        """Save on the thread, and note what has come of it: the caller may have gone."""
        self._saving = taken.step
        try:
            time_left = self.schedule.time_left
            saved = self._saver.save(taken, permit, self.schedule.policy, time_left)
        except Exception as exc:
            self._failed += 1
            self._saver.failed(taken.step, exc)
            if isinstance(exc, KeiseiError):
                raise
            assert self._facts.paths is not None
            problem = f"{taken.name} cannot be saved: {describe(exc)}"
            raise CheckpointError(problem, path=self._facts.paths.model_dir) from exc
        finally:
            self._saving = None
        if saved.is_new:
            self._count += 1
            self.phases.saved()
            self._slowest = max(self._slowest, saved.seconds)
        if taken.step is not None:
            self._latest, self._best = saved.checkpoint, saved.best or self._best
            self.schedule.note_saved(taken.step)
        return saved

    async def restore(
        self, which: Which, resume: bool | None, shard: int | None
    ) -> Restored | None:
        """Read a checkpoint back, and go on from it where it is the attempt's first."""
        self._check(Step.RESTORE)
        permit, asked = Permit(), savable.checked_which(which)
        rank = None if shard is None else savable.whole_step(shard, "shard")
        alone = self._count == 0
        run = partial(self._restorer.restore, asked, resume, rank, permit, alone=alone)
        with self.phases.own(CHECKPOINT):
            restored: Restored | None = await self._in_turn(
                run, permit, Step.RESTORE, is_copy=False
            )
        return restored

    async def _in_turn(
        self, func: Callable[[], Any], permit: Permit, step: Step, *, is_copy: bool
    ) -> Any:
        """Run a function on a thread when nothing else is under way."""
        await load_backend()
        if self._lock is None:
            self._lock = anyio.Lock(fast_acquire=True)
        async with self._lock:
            while self._work is not None and not self._work.ended:
                await self._work.over()  # its caller has gone
            self._check(step)
            self._permit = permit
            work = self._work = Work(func, is_long=True)
            try:
                return await work.result()
            except anyio.get_cancelled_exc_class():
                if not is_copy:
                    permit.give_up()
                    with suppress(TimeoutError):
                        longest = min(files.FILE_TIMEOUT, self.schedule.time_left)
                        await patiently(work.over, longest)
                raise
            except CheckpointError:
                if permit.given_up:
                    self._check(step)
                raise

    def hold(self, grace: float) -> float | None:
        """Save at the next safe point, for the run is preempted; called by a signal's handler.

        Args:
            grace: the time until the process has to be over, in seconds.

        Returns:
            How long the run may go on to that safe point; ``None`` where none is waited for.
        """
        if Step.START not in self._facts.done:
            return None
        try:
            finish_time = self._finish_time()
        except RuntimeError:  # trackers come or go at this moment, on another thread
            finish_time = grace
        return self.schedule.hold(grace, self._slowest, finish_time)

    async def save_last(self, taken: Taken) -> None:
        """Save what the end has to save, in the time that there is; what fails is logged."""
        timeout = self.schedule.time_left
        if timeout < self._slowest:
            problem = f"{timeout:.1f} s are left, and the slowest save took {self._slowest:.1f} s"
            self.not_saved(taken.step, TimeoutError(problem))
            return
        try:
            await patiently(partial(self.save, taken), timeout)
        except TimeoutError as exc:
            self._permit.give_up()
            self.not_saved(taken.step, exc)
        except KeiseiError as exc:
            self.not_saved(taken.step, exc)

    def not_saved(self, step: int | None, exc: Exception) -> None:
        """Log that something is not saved, where nobody is there to be told."""
        text = "run %s: the checkpoint of step %s is not saved: %s"
        logger.error(text, self._facts.run_name, step, describe(exc))

    async def is_over(self) -> None:
        """Wait for the save that is under way, as long as there is time; none follows it."""
        work = self._work
        try:
            if work is not None and not work.ended and not self._permit.given_up:
                with suppress(TimeoutError):
                    await patiently(work.over, self.schedule.time_left)
        finally:
            self._permit.give_up()

    async def is_copied(self) -> None:
        """Wait until the URL has all checkpoints, if one is named, as long as there is time."""
        if (mirror := self._saver.mirror) is not None:
            timeout = min(COPIES_TIMEOUT, self.schedule.time_left)
            work = Work(partial(mirror.finish, timeout), is_long=True)
            try:
                with suppress(TimeoutError):
                    await patiently(work.result, timeout + 1.0)
            finally:
                mirror.close()

    def close(self, timeout: float) -> None:
        """Wait for the save that is under way, and let none appear any more; blocks.

        Args:
            timeout: the longest wait, in seconds.
        """
        give_up, work = time.monotonic() + timeout, self._work
        while work is not None and not (work.ended or self._permit.given_up):
            if time.monotonic() >= give_up:
                break
            time.sleep(0.01)
        self._permit.give_up()
        self.schedule.due_step = ALWAYS
        self._restorer.release()
        self._state = {}

    def summary(self) -> dict[str, Any]:
        """Return what this session has saved, as plain data."""
        latest, best = self._latest, self._best
        return {
            "count": self._count,
            "latest": latest and latest.path,
            "best": best and best.path,
            "last_step": latest and latest.step,
            "slowest_s": self._slowest or None,
            "failed": self._failed,
        }

    def _check(self, step: Step) -> None:
        self._facts.check_process(f"{step}()")
        require(step, self._facts.done, self._facts.status)
        self._recorder.stop.check()
