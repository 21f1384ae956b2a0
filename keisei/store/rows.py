"""A run as one row of a list: the same whether the registry or the directories tell of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lazily(Mapping[K, V]):
    """A mapping that is read when somebody first asks for something of it.

    Args:
        read: returns the mapping.
    """

    def __init__(self, read: Callable[[], Mapping[K, V]]) -> None:
        self._read: Callable[[], Mapping[K, V]] | None = read
        self._known: Mapping[K, V] = {}

    def _all(self) -> Mapping[K, V]:
        if self._read is not None:
            self._known, self._read = self._read(), None
        return self._known

    def __getitem__(self, key: K) -> V:
        return self._all()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """What a metric has come to, without what was superseded.

    Attributes:
        last: its last value; NaN is ``None``, as in the others.
        min: the smallest.
        max: the largest.
        mean: the mean.
        best: `min` or `max`, as `checkpoints.keep_best` says of this metric; else ``None``.
        count: how many values there are.
        step: the step of the last value, if it has one.
    """

    last: float | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    best: float | None = None
    count: int = 0
    step: int | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run, as lists show it.

    Attributes:
        name: the run's name.
        directory: its directory's absolute path.
        session_id: its id; ``None`` where its session file cannot be read.
        status: how it stands: `running`, `elsewhere`, `lost`, `died`, or how it ended.
        attempt: how often it was started.
        host: the host of its last owner.
        pid: the process of its last owner.
        started: when its last attempt was started, in seconds since the epoch.
        ended: when it ended.
        duration_s: how long its last attempt took, in seconds.
        failure: why it failed, in one line.
        tags: its tags, sorted.
        note: its note.
        config: its effective config, secrets hidden.
        metrics: what its metrics have come to, by name.
        trackers: the state of each tracker, by its name.
        checkpoints: its `count`, and the steps of the `latest` and of the `best`; empty where its
            models cannot be seen.
        cost: what it has cost, over all its attempts and parts: its `total`, in which `currency`,
            and the `totals` of each; its `energy_kwh` where that was measured, and how many things
            are `unpriced` where any are. Empty where there is nothing.
        trashed: when it was moved to the trash, in seconds since the epoch.
    """

    name: str
    directory: str
    session_id: str | None = None
    status: str = "no session file"
    attempt: int | None = None
    host: str | None = None
    pid: int | None = None
    started: float | None = None
    ended: float | None = None
    duration_s: float | None = None
    failure: str | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, MetricSummary] = field(default_factory=dict)
    trackers: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[str, object] = field(default_factory=dict)
    cost: Mapping[str, object] = field(default_factory=dict)
    trashed: float | None = None
