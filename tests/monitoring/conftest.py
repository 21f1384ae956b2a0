"""A stand-in for the driver of GPUs, and sessions that measure what they use."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from keisei.monitoring import sampling
from keisei.monitoring.readings import Sample
from keisei.monitoring.sampling import Subscriber, subscribe, unsubscribe

NVML = Path(__file__).parent.parent / "support" / "nvml"
TIMEOUT = 30.0


class Driver:
    """The stand-in's switches."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def set(self, name: str, text: str = "") -> None:
        (self.where / name).write_text(text)

    def unset(self, name: str) -> None:
        (self.where / name).unlink()


class Watched:
    """A session, as far as the sampler knows one."""

    def __init__(
        self, directory: Path, interval: float, samplers: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.samples: queue.SimpleQueue[tuple[float, Sample, Mapping[str, float]]]
        self.samples = queue.SimpleQueue()
        self.about: Mapping[str, Any] = {}
        self.subscriber = Subscriber(str(directory), interval, self._take, samplers)
        self.subscriber.began -= sampling.YOUNGEST  # it needs no second of life

    def _take(self, sample: Sample, drawn: Mapping[str, float], about: Mapping[str, Any]) -> None:
        self.about = about
        self.samples.put((time.monotonic(), sample, drawn))

    def until(self, holds: Callable[[Sample], bool]) -> tuple[float, Sample]:
        """Return the next sample that fits, and when it came."""
        give_up = time.monotonic() + TIMEOUT
        while True:
            when, sample, _ = self.samples.get(timeout=max(0.0, give_up - time.monotonic()))
            if holds(sample):
                return when, sample


Watch = Callable[..., Watched]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Driver:
    """The stand-in for the driver, in each sampler that is started from now on."""
    where = tmp_path / "nvml"
    where.mkdir()
    monkeypatch.syspath_prepend(str(NVML))
    monkeypatch.setenv("KEISEI_TEST_NVML", str(where))
    for name in sampling.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return Driver(where)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Watch what a directory's run uses, until the test is over."""
    watched: list[Watched] = []

    def begin(
        interval: float = 0.2,
        launch: str = "",
        local_rank: int = 0,
        samplers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Watched:
        one = Watched(tmp_path, interval, samplers or {})
        watched.append(one)
        subscribe(one.subscriber, launch, local_rank)
        return one

    yield begin
    for one in watched:
        unsubscribe(one.subscriber)
    give_up = time.monotonic() + TIMEOUT
    while (current := sampling._current) is not None and not current.over:
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the sessions of a test measure what they use."""
    monkeypatch.setenv("KEISEI_RESOURCES", "on")
