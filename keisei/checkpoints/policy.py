"""When a checkpoint is due, and which ones are kept: plain functions of what they are given."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from keisei.checkpoints.values import Checkpoint
from keisei.config.schema import CheckpointsConfig, KeepBest

NEVER = 1 << 63  # no step is as high


def next_due(policy: CheckpointsConfig, step: int) -> int:
    """Return the first step after this one at which a checkpoint is due; `NEVER` where none is.

    Args:
        policy: the policy.
        step: the last step that is behind the run: of its last save; -1 at its start.
    """
    later = [at for at in policy.at_steps if at > step]
    if policy.interval is not None:
        later.append((max(step, 0) // policy.interval + 1) * policy.interval)
    return min(later, default=NEVER)


def patience(grace: float, slowest: float, ending: float) -> float:
    """Return how long a run that is preempted may go on to a safe point, in seconds.

    What is left is for the save, which may take half as long again as the slowest one so far, and
    for the end.

    Args:
        grace: the time for all of it, in seconds.
        slowest: how long the slowest save has taken; 0 where none was made yet.
        ending: how long the end may take beside the save.
    """
    save = 1.5 * slowest if slowest else grace / 4
    return max(0.0, grace - save - min(ending, grace / 4))


def ranked(checkpoints: Sequence[Checkpoint], by: KeepBest) -> list[Checkpoint]:
    """Return the checkpoints by a metric, the best first; of equal ones the newer first.

    One that was saved without the metric, or with NaN, is not among them.

    Args:
        checkpoints: the checkpoints, in the order of their commits.
        by: the metric, and which way it is better.
    """
    sign = 1.0 if by.mode == "min" else -1.0
    known = [
        (sign * value, -number, checkpoint)
        for number, checkpoint in enumerate(checkpoints)
        if checkpoint.step is not None
        and not math.isnan(value := checkpoint.metrics.get(by.metric, math.nan))
    ]
    return [checkpoint for _, _, checkpoint in sorted(known, key=lambda known: known[:2])]


def best(checkpoints: Sequence[Checkpoint], by: KeepBest) -> Checkpoint | None:
    """Return the best checkpoint by a metric; ``None`` where none has a value of it.

    Args:
        checkpoints: the checkpoints, in the order of their commits.
        by: the metric, and which way it is better.
    """
    return next(iter(ranked(checkpoints, by)), None)


def kept(policy: CheckpointsConfig, checkpoints: Sequence[Checkpoint]) -> Collection[str]:
    """Return the paths of the checkpoints that the policy keeps; the others may go.

    The newest is always among them.

    Args:
        policy: the policy.
        checkpoints: those that verify, in the order of their commits; final models aside.
    """
    if policy.keep_last is None:
        return {checkpoint.path for checkpoint in checkpoints}
    stay = {checkpoint.path for checkpoint in checkpoints[-policy.keep_last :]}
    if policy.keep_best is not None:
        for checkpoint in ranked(checkpoints, policy.keep_best)[: policy.keep_best.count]:
            stay.add(checkpoint.path)
    if policy.keep_every is not None:
        for checkpoint in checkpoints:
            if checkpoint.step is not None and checkpoint.step % policy.keep_every == 0:
                stay.add(checkpoint.path)
    return stay


def most_kept(policy: CheckpointsConfig) -> int | None:
    """Return how many checkpoints the policy keeps at most; ``None`` where there is no such bound.

    Args:
        policy: the policy.
    """
    if policy.keep_last is None or policy.keep_every is not None:
        return None
    return policy.keep_last + (policy.keep_best.count if policy.keep_best else 0)
