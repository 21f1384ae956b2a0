"""Merges the rows of a run's parts while they come: which steps are done, and what they come to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from keisei.journal.merging import Reduction, reduced
from keisei.journal.records import Value

PATIENCE = 5.0  # seconds that a step waits for parts that may never log its metric
_MOST = 10_000  # steps of one metric that wait

# A part's name; `None` is the owner.
Part = str | None


class _Metric:
    """One metric: the values that wait, and how far each part is."""

    def __init__(self) -> None:
        self.waiting: dict[int, dict[Part, Value]] = {}
        self.since: dict[int, float] = {}
        self.front: dict[Part, int] = {}
        self.done: int | None = None  # the last step that was merged


class StepMerger:
    """Merges what parts log of each metric, step by step.

    A step is done when all parts that live have logged it, or have gone beyond it. One that has
    not logged the metric at all yet is waited for as long as `PATIENCE`: it may never do so. A
    value that comes when its step is done is left out.

    Args:
        how: ``mean``, ``min``, ``max`` or ``sum``.
    """

    def __init__(self, how: Reduction) -> None:
        self._how = how
        self._metrics: dict[str, _Metric] = {}

    def add(self, part: Part, values: Mapping[str, Value], step: int | None, now: float) -> None:
        """Take a row; one without a step is left out.

        Args:
            part: whose it is.
            values: its numbers by name.
            step: its training step.
            now: the time, in seconds, by a clock that never goes back.
        """
        if step is None:
            return
        for key, value in values.items():
            metric = self._metrics.setdefault(key, _Metric())
            if metric.done is None or step > metric.done:
                metric.waiting.setdefault(step, {})[part] = value
                metric.since.setdefault(step, now)
                metric.front[part] = max(step, metric.front.get(part, step))

    def reset(self) -> None:
        """Begin anew: the run goes back to an earlier step."""
        self._metrics.clear()

    def take(
        self, live: Collection[Part], now: float, *, everything: bool = False
    ) -> list[tuple[int, dict[str, Value]]]:
        """Return the steps that are done, in order, each with its merged values by name.

        Args:
            live: the parts that may log more.
            now: the time, as for `add`.
            everything: whether all that waits is taken as done: the run ends.
        """
        found: dict[int, dict[str, Value]] = {}
        for key, metric in self._metrics.items():
            for step in sorted(metric.waiting):
                late = len(metric.waiting) > _MOST
                if not (everything or late or _is_done(metric, step, live, now)):
                    break
                metric.since.pop(step)
                series = [([step], [value]) for value in metric.waiting.pop(step).values()]
                found.setdefault(step, {})[key] = reduced(series, self._how)[1][0]
                metric.done = step
        return sorted(found.items())


def _is_done(metric: _Metric, step: int, live: Collection[Part], now: float) -> bool:
    behind = [part for part in live if metric.front.get(part, step - 1) < step]
    if not behind:
        return True
    return now - metric.since[step] >= PATIENCE and not any(part in metric.front for part in behind)
