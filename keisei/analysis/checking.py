"""Check runs against their baselines: which earlier runs count, and the verdict on each metric."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from keisei.analysis.comparable import incomparable
from keisei.analysis.curves import Curve, at_end, common_end
from keisei.analysis.directions import directions
from keisei.analysis.verdicts import FALSE_ALARMS, MARGIN, Better, Verdict, verdicts
from keisei.journal.reader import RunJournal
from keisei.journal.records import as_float
from keisei.store.directories import best_in
from keisei.store.rows import RunRow

BASELINE = "baseline"  # the tag
MOST_BASELINES = 30  # the newest; more decide hardly better, and each is read whole
_OWN = ("system/*",)  # what a run uses, and not what it comes to


@dataclass(frozen=True)
class Options:
    """What a check is told.

    Attributes:
        metrics: names, or patterns, of the metrics to judge; all whose direction is known if none.
        higher: names, or patterns, of those of which more is better.
        lower: names, or patterns, of those of which less is better.
        ignore: paths, or patterns, of config values that do not make runs incomparable.
        margin: the relative difference that matters.
        false_alarms: the share of alarms where nothing has changed, over all metrics.
    """

    metrics: Sequence[str] = ()
    higher: Sequence[str] = ()
    lower: Sequence[str] = ()
    ignore: Sequence[str] = ()
    margin: float = MARGIN
    false_alarms: float = FALSE_ALARMS


@dataclass(frozen=True)
class Checked:
    """What a check has found.

    Attributes:
        runs: the names of the runs that were checked.
        baselines: the names of the earlier runs that they were held against, the oldest first.
        tagged: whether those are the tagged ones, and not all that are comparable.
        left_out: why each other run does not count, by its name.
        verdicts: the verdict on each metric.
        unknown: the metrics that were not judged, as nobody has said which way they are better.
    """

    runs: list[str]
    baselines: list[str]
    tagged: bool
    left_out: dict[str, list[str]]
    verdicts: dict[str, Verdict]
    unknown: list[str]


def check(new: Sequence[RunRow], others: Iterable[RunRow], options: Options) -> Checked:
    """Check runs that differ in their seeds alone against earlier ones; it reads their journals.

    Args:
        new: the runs to check, at least one.
        others: all runs that may be baselines.
        options: what to judge, and how.

    Raises:
        ValueError: the runs are not comparable with each other.
        OSError: a run that is checked cannot be read.
    """
    first, *more = new
    for row in more:
        if reasons := incomparable(row.config, first.config, options.ignore):
            raise ValueError(
                f"runs {row.name} and {first.name} are not comparable ({'; '.join(reasons)}): "
                "check them one by one, or leave that out with --ignore"
            )
    chosen, tagged, left_out = baselines(new, others, options.ignore)
    own = [_curves(row.directory, _wanted(options)) for row in new]
    best = best_in(first.config)
    names = {key for curves in own for key in curves}
    better = directions(names, options.higher, options.lower, best)
    judged = [key for key in sorted(names) if key in better or options.metrics]
    earlier = [_curves_or_none(row.directory, judged) for row in chosen]
    values: dict[str, list[float]] = {}
    history: dict[str, list[float]] = {}
    for key in judged:
        curves = [curves[key] for curves in own if key in curves]
        known = [curves[key] for curves in earlier if key in curves]
        last = common_end([*curves, *known])
        values[key] = _ends(curves, last)
        history[key] = _ends(known, last)
    return Checked(
        runs=[row.name for row in new],
        baselines=[row.name for row in chosen],
        tagged=tagged,
        left_out=left_out,
        verdicts=_verdicts(values, history, better, options),
        unknown=sorted(names - set(judged)),
    )


def baselines(
    new: Sequence[RunRow], others: Iterable[RunRow], ignore: Sequence[str] = ()
) -> tuple[list[RunRow], bool, dict[str, list[str]]]:
    """Return the baselines of some runs, whether they are the tagged ones, and who is left out.

    Where a comparable run has the tag `baseline`, those that have it count; else all do that are
    comparable and were completed.

    Args:
        new: the runs.
        others: all runs that may be baselines.
        ignore: paths, or patterns, of config values that do not make runs incomparable.
    """
    own = {os.path.realpath(row.directory) for row in new}
    left_out: dict[str, list[str]] = {}
    fitting = []
    for row in sorted(others, key=lambda row: row.started or 0.0):
        if os.path.realpath(row.directory) in own:
            continue
        reasons = incomparable(new[0].config, row.config, ignore)
        if row.status != "completed" and BASELINE not in row.tags:
            reasons.insert(0, f"it is {row.status}")
        if reasons:
            left_out[row.name] = reasons
        else:
            fitting.append(row)
    chosen = [row for row in fitting if BASELINE in row.tags]
    tagged = bool(chosen)
    chosen = (chosen or fitting)[-MOST_BASELINES:]
    for row in fitting:
        if row not in chosen:
            why = f"it has no tag {BASELINE!r}, and others have"
            left_out[row.name] = [why if tagged else f"{MOST_BASELINES} newer ones are enough"]
    return chosen, tagged, left_out


def _verdicts(
    values: dict[str, list[float]],
    history: dict[str, list[float]],
    better: dict[str, Better],
    options: Options,
) -> dict[str, Verdict]:
    return verdicts(
        values, history, better, margin=options.margin, false_alarms=options.false_alarms
    )


def _ends(curves: Sequence[Curve], last: int | None) -> list[float]:
    ends = [at_end(curve, last) for curve in curves]
    return [end for end in ends if end is not None]


def _wanted(options: Options) -> Callable[[str], bool]:
    if options.metrics:
        patterns = tuple(options.metrics)
        return lambda key: any(fnmatchcase(key, pattern) for pattern in patterns)
    return lambda key: not any(fnmatchcase(key, pattern) for pattern in _OWN)


def _curves_or_none(directory: str, keys: Iterable[str]) -> dict[str, Curve]:
    """Return the curves of an earlier run; none where it has gone or cannot be read."""
    try:
        return _curves(directory, frozenset(keys).__contains__)
    except OSError:
        return {}


def _curves(directory: str, wanted: Callable[[str], bool]) -> dict[str, Curve]:
    """Read the curves of a run's metrics, without what was superseded."""
    found: dict[str, Curve] = {}
    columns: dict[tuple[str, ...], list[tuple[int, Curve]]] = {}
    for _, superseded, _, keys, raw in RunJournal(directory).merged():
        if superseded:
            continue
        if keys not in columns:
            columns[keys] = [
                (place, found.setdefault(key, Curve()))
                for place, key in enumerate(keys, 1)
                if wanted(key)
            ]
        for place, curve in columns[keys]:
            curve.times.append(raw[0])  # type: ignore[arg-type]
            curve.steps.append(raw[-1])  # type: ignore[arg-type]
            curve.values.append(as_float(raw[place]))  # type: ignore[arg-type]
    return found
