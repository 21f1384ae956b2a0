"""Check runs against their baselines: the verdict on each metric, and on the time to a target."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from keisei.analysis.baselines import Baselines, Choice, find_baselines, reasons_against
from keisei.analysis.curves import Curve, at_end, common_end
from keisei.analysis.directions import directions
from keisei.analysis.reading import read_curves
from keisei.analysis.targets import Reached, reached, side_of, without_numbers
from keisei.analysis.verdicts import FALSE_ALARMS, MARGIN, Better, Verdict, verdicts
from keisei.store.directories import best_in
from keisei.store.rows import RunRow

_OWN = ("system/*",)  # what a run uses, and not what it comes to


@dataclass(frozen=True)
class Options:
    """What a check is told.

    Attributes:
        metrics: names, or patterns, of the metrics to judge; all whose direction is known if none.
        higher: names, or patterns, of those of which more is better.
        lower: names, or patterns, of those of which less is better.
        targets: values of metrics to which the time is judged, too.
        choice: what a baseline has to be.
        margin: the relative difference that matters.
        false_alarms: the share of alarms where nothing has changed, over all metrics.
    """

    metrics: Sequence[str] = ()
    higher: Sequence[str] = ()
    lower: Sequence[str] = ()
    targets: Mapping[str, float] = field(default_factory=dict)
    choice: Choice = field(default_factory=Choice)
    margin: float = MARGIN
    false_alarms: float = FALSE_ALARMS


@dataclass(frozen=True)
class Checked:
    """What a check has found.

    Attributes:
        runs: the names of the runs that were checked, each with its status.
        baselines: the names of the earlier runs that they were held against, the oldest first.
        kind: why those count: they are `named`, `tagged` or `comparable`.
        left_out: why each other run does not count, by its name.
        verdicts: the verdict on each metric.
        unknown: the metrics that were not judged, as nobody has said which way they are better.
    """

    runs: dict[str, str]
    baselines: list[str]
    kind: str
    left_out: dict[str, list[str]]
    verdicts: dict[str, Verdict]
    unknown: list[str]


Curves = dict[str, Curve]


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
    return Checker(new, others, options).check(new)


class Checker:
    """Checks the same runs once or more often against the baselines that they had at first.

    Args:
        new: the runs to check, at least one.
        others: all runs that may be baselines.
        options: what to judge, and how.

    Raises:
        ValueError: the runs are not comparable with each other.
    """

    def __init__(self, new: Sequence[RunRow], others: Iterable[RunRow], options: Options) -> None:
        first, *more = new
        for row in more:
            if reasons := reasons_against(row, first, options.choice):
                raise ValueError(
                    f"runs {row.name} and {first.name} are not comparable ({'; '.join(reasons)}): "
                    "check them one by one, or leave that out with --ignore"
                )
        checked = {os.path.realpath(row.directory) for row in new}
        rest = [row for row in others if os.path.realpath(row.directory) not in checked]
        self._options = options
        self._baselines = find_baselines(first, rest, options.choice)
        self._best = best_in(first.config)
        self._earlier: dict[str, Curves] = {}
        self._read: list[str] | None = None  # the metrics of which the earlier curves are known

    def check(self, new: Sequence[RunRow]) -> Checked:
        """Check the runs by what they have logged by now.

        Args:
            new: the runs, as they stand now.

        Raises:
            OSError: one of them cannot be read.
        """
        options, found = self._options, self._baselines
        own = [read_curves(row.directory, _wanted(options)) for row in new]
        names = sorted({key for curves in own for key in curves})
        better = directions(names, options.higher, options.lower, self._best)
        ends = [key for key in names if _is_asked(key, options.metrics, better)]
        judged = [key for key in names if key in ends or key in options.targets]
        if judged != self._read:
            self._earlier, self._read = _read(found, judged), judged
        values: dict[str, list[float]] = {}
        history: dict[str, list[float]] = {}
        decided: dict[str, Verdict] = {}
        for key in judged:
            curves = [curves[key] for curves in own if key in curves]
            known = [curves[key] for curves in self._earlier.values() if key in curves]
            if key in ends:
                last = common_end([*curves, *known])
                values[key], history[key] = _ends(curves, last), _ends(known, last)
            if (target := options.targets.get(key)) is not None:
                side = better.get(key) or side_of([*curves, *known], target)
                for name, (times, before) in _times(curves, known, key, target, side).items():
                    better[name] = "lower"
                    if (verdict := without_numbers(times, before)) is not None:
                        decided[name] = verdict
                    else:
                        values[name], history[name] = _numbers(times), _numbers(before)
        for key, target in options.targets.items():
            if key not in names:
                decided[f"{key}={target:g}"] = Verdict("undecided", "the run has no value of it")
        decided |= verdicts(
            values, history, better, margin=options.margin, false_alarms=options.false_alarms
        )
        return Checked(
            runs={row.name: row.status for row in new},
            baselines=list(self._earlier),
            kind=found.kind,
            left_out=found.left_out,
            verdicts={key: decided[key] for key in sorted(decided)},
            unknown=[key for key in names if key not in judged],
        )


def _is_asked(key: str, metrics: Sequence[str], better: Mapping[str, Better]) -> bool:
    """Return whether a metric's end is judged: it is asked for, or all that have a direction."""
    if metrics:
        return any(fnmatchcase(key, pattern) for pattern in metrics)
    return key in better


def _times(
    curves: Sequence[Curve], known: Sequence[Curve], key: str, target: float, side: Better
) -> dict[str, tuple[list[Reached], list[Reached]]]:
    """Return the times to a target of the new and of the earlier runs, by steps and by seconds."""
    new = [reached(curve, target, side) for curve in curves]
    before = [reached(curve, target, side) for curve in known]
    found = {}
    steps = [[steps for steps, _ in runs if steps is not None] for runs in (new, before)]
    if len(steps[0]) == len(new) and len(steps[1]) == len(before):
        found[f"steps to {key}={target:g}"] = (steps[0], steps[1])
    found[f"seconds to {key}={target:g}"] = ([s for _, s in new], [s for _, s in before])
    return found


def _numbers(times: Sequence[Reached]) -> list[float]:
    return [float(one.at) for one in times if one.at is not None]


def _ends(curves: Sequence[Curve], last: int | None) -> list[float]:
    ends = [at_end(curve, last) for curve in curves]
    return [end for end in ends if end is not None]


def _wanted(options: Options) -> Callable[[str], bool]:
    if options.metrics:
        patterns = (*options.metrics, *options.targets)
        return lambda key: any(fnmatchcase(key, pattern) for pattern in patterns)
    return lambda key: not any(fnmatchcase(key, pattern) for pattern in _OWN)


def _read(found: Baselines, keys: Iterable[str]) -> dict[str, Curves]:
    """Return the curves of the baselines; one that is gone, or cannot be read, is left out."""
    wanted = frozenset(keys).__contains__
    earlier = {}
    for row in found.chosen:
        try:
            earlier[row.name] = read_curves(row.directory, wanted)
        except OSError as exc:
            found.left_out[row.name] = [f"it cannot be read: {exc.strerror or exc}"]
    return earlier
