"""Which earlier runs count as baselines, and why the others do not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from keisei.analysis.comparable import incomparable
from keisei.analysis.snapshots import Snapshot, code_of, machine_class
from keisei.errors import quoted
from keisei.provenance.reading import read_snapshot
from keisei.store.rows import RunRow

BASELINE = "baseline"  # the tag
MOST_BASELINES = 30  # the newest; more decide hardly better, and each is read whole
MACHINE = "machine"  # the path of what is no config value


@dataclass(frozen=True)
class Choice:
    """What a baseline has to be.

    Attributes:
        ignore: paths, or patterns, of config values that do not make runs incomparable; `machine`
            stands for the kind of machine.
        same_code: whether it has to be of the same commit, with the same changes.
        named: the directories of the only runs that may be baselines, however they have ended;
            all may that are comparable, where none is named.
    """

    ignore: Sequence[str] = ()
    same_code: bool = False
    named: Sequence[str] = ()


@dataclass(frozen=True)
class Baselines:
    """The runs that count, and those that do not.

    Attributes:
        chosen: those that count, the oldest first.
        kind: why they do: they are `named`, `tagged`, or `comparable`.
        left_out: why each other run does not count, by its name.
    """

    chosen: list[RunRow]
    kind: str = "comparable"
    left_out: dict[str, list[str]] = field(default_factory=dict)


def snapshot_of(row: RunRow) -> Snapshot | None:
    """Return what a run's last attempt was started from; ``None`` where that is not to be had."""
    try:
        return read_snapshot(row.directory)
    except OSError:
        return None


def reasons_against(new: RunRow, other: RunRow, choice: Choice) -> list[str]:
    """Return why two runs are not comparable, in words; nothing where they are.

    Args:
        new: the new run.
        other: the earlier one.
        choice: what is asked of it.
    """
    reasons = incomparable(new.config, other.config, choice.ignore)
    if reasons:
        return reasons  # and its provenance need not be read
    ours, theirs = snapshot_of(new), snapshot_of(other)
    if not any(fnmatchcase(MACHINE, pattern) for pattern in choice.ignore):
        kinds = machine_class(ours), machine_class(theirs)
        reasons += incomparable({}, {}, machines=kinds)
    if choice.same_code:
        now, was = code_of(ours), code_of(theirs)
        if now is None or was is None:
            reasons.append(f"the code of {new.name if now is None else other.name} is not recorded")
        elif now != was:
            reasons.append(f"the code is {quoted(now)}, and was {quoted(was)}")
    return reasons


def find_baselines(new: RunRow, others: Iterable[RunRow], choice: Choice) -> Baselines:
    """Return which of the other runs are a run's baselines; it reads what they were started from.

    Where runs are named, they alone count; else, where a comparable run has the tag `baseline`,
    those that have it; else all that are comparable and were completed.

    Args:
        new: the run.
        others: all runs that may be baselines, without those that are checked.
        choice: what is asked of them.
    """
    named = {os.path.realpath(directory) for directory in choice.named}
    left_out: dict[str, list[str]] = {}
    fitting = []
    for row in sorted(others, key=lambda row: row.started or 0.0):
        if named and os.path.realpath(row.directory) not in named:
            continue
        reasons = []
        if not named and row.status != "completed" and BASELINE not in row.tags:
            reasons.append(f"it is {row.status}")
        reasons += reasons_against(new, row, choice)
        if reasons:
            left_out[row.name] = reasons
        else:
            fitting.append(row)
    if named:
        return Baselines(fitting, "named", left_out)
    tagged = [row for row in fitting if BASELINE in row.tags]
    chosen = (tagged or fitting)[-MOST_BASELINES:]
    why = f"it has no tag {BASELINE!r}, and others have"
    enough = f"{MOST_BASELINES} newer ones are enough"
    for row in fitting:
        if row not in chosen:
            left_out[row.name] = [why if tagged and BASELINE not in row.tags else enough]
    return Baselines(chosen, "tagged" if tagged else "comparable", left_out)
