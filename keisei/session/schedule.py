"""When a session saves by itself: at which safe point next, and how much time is left for it."""

from __future__ import annotations

import time

from keisei.checkpoints import policy
from keisei.config.schema import CheckpointsConfig
from keisei.run.status import FinalStatus

ALWAYS = -policy.NEVER  # every step is as high
END_TIMEOUT = 600.0  # seconds that a session's end waits for a save
ENDING = 1.0  # seconds that the end takes beside it, at most a quarter of the grace time


class Schedule:
    """When a session saves by itself.

    Attributes:
        policy: the policy; ``None`` where none is set.
        due_step: the step from which on `checkpoint_if_due` has to look closer.
        due_time: the same as a time of the monotonic clock; ``None`` where only steps count.
        step: the last safe point; ``None`` before the first.
        reached: the same, set before it is looked at whether it is due: whoever sets `due_step`
            and reads this afterwards knows of every safe point that was passed.
        saved_step: the step that was saved or restored last, and needs not be saved again.
        goes_on: whether the training goes on from this safe point, although the run may be
            preempted: one of several ranks is further, or did not know of it when it came here.
    """

    def __init__(self) -> None:
        self.policy: CheckpointsConfig | None = None
        self.due_step = ALWAYS
        self.due_time: float | None = None
        self.step: int | None = None
        self.reached: int | None = None
        self.saved_step: int | None = None
        self.goes_on = False
        self._give_up: float | None = None

    @property
    def preempted(self) -> bool:
        """Whether a preemption has asked for a save."""
        return self._give_up is not None

    def plan(self) -> None:
        """Look closer when the policy says so next, after what is saved and what was due."""
        if self.policy is None:
            return
        every = self.policy.every_seconds
        self.due_time = None if every is None else time.monotonic() + every
        self.due_step = policy.next_due(self.policy, self._behind)
        if self._give_up is not None:  # looked at last: the signal's handler sets both
            self.due_step = ALWAYS

    def note_saved(self, step: int) -> None:
        """Note that a step is saved, whoever has asked for it."""
        self.saved_step = step
        if self.policy is not None and self.policy.every_seconds is not None:
            self.due_time = time.monotonic() + self.policy.every_seconds

    def go_back(self, step: int | None) -> None:
        """Go on from a checkpoint of this step."""
        self.step, self.reached, self.saved_step = None, None, step
        self.plan()

    def is_due(self, step: int) -> bool:
        """Return whether a safe point is to be saved, and plan the next one where it is."""
        timed = self.due_time is not None and time.monotonic() >= self.due_time
        by_step = step >= self.due_step  # looked at before it is asked whether it is preempted
        if self.preempted:
            by_step = self._is_due_anyway(step) if self.goes_on else True
        due = timed or by_step
        self.step = step
        if due:
            self.plan()
        return due and step != self.saved_step

    def _is_due_anyway(self, step: int) -> bool:
        """Return whether a safe point would be saved were the run not preempted."""
        if self.policy is None:
            return False
        return step >= policy.next_due(self.policy, self._behind)

    @property
    def _behind(self) -> int:
        """The step up to which nothing is due any more; -1 before the first."""
        return max((s for s in (self.step, self.saved_step) if s is not None), default=-1)

    def due_at_end(self, status: FinalStatus) -> int | None:
        """Return the step to save when the session ends so; ``None`` where there is none."""
        if self.policy is None or self.step == self.saved_step:
            return None
        at_end = self.policy.at_end and status == "completed"
        cut_off = self.preempted and status in ("preempted", "cancelled")
        return self.step if at_end or cut_off else None

    def hold(self, grace: float, slowest: float, finish_time: float) -> float | None:
        """Save at the next safe point, for the run is preempted; called by a signal's handler.

        Args:
            grace: the time until the process has to be over, in seconds.
            slowest: how long the slowest save has taken, in seconds.
            finish_time: how long the trackers may take at the end, in seconds.

        Returns:
            How long the run may go on to that safe point; ``None`` where none is waited for.
        """
        if self.policy is None or not self.policy.on_preemption:
            return None
        self._give_up = time.monotonic() + grace - min(ENDING, grace / 4)
        self.due_step = ALWAYS
        return policy.patience(grace, slowest, ENDING + finish_time)

    @property
    def time_left(self) -> float:
        """How long the end may wait for a save, in seconds."""
        if self._give_up is None:
            return END_TIMEOUT
        return max(0.0, self._give_up - time.monotonic())
