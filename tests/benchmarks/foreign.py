"""Trackers of a third party's that hang and fail, installed as pip would install them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from keisei.trackers.base import Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.loading import make_tracker


def install(place: Path, names: Sequence[str]) -> None:
    """Install `Wrapped` under several names, in a directory for the import path.

    Args:
        place: the directory; it is made.
        names: the names of the entry points.
    """
    about = place / "foreign-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: foreign\nVersion: 1.0\n")
    lines = (f"{name} = tests.benchmarks.foreign:Wrapped\n" for name in names)
    (about / "entry_points.txt").write_text(f"[keisei.trackers]\n{''.join(lines)}")


class Wrapped(Tracker):
    """A built-in tracker whose `send` hangs for ever, or fails now and then.

    Args:
        inner: the built-in tracker's name.
        options: what it is made with.
        hangs: whether `send` never returns.
        errors: how often `send` fails, before or after it has taken its batch.
        seed: decides when.
        told: a file that gets a byte for each failure.
    """

    def __init__(
        self,
        inner: str,
        options: dict[str, object],
        *,
        hangs: bool = False,
        errors: int = 0,
        seed: int = 0,
        told: str = os.devnull,
    ) -> None:
        self._inner = make_tracker(inner, options)
        self.name, self.start_timeout = inner, self._inner.start_timeout
        self._hangs, self._left, self._told = hangs, errors, told
        self._draw = random.Random(seed)

    def start(self, run: RunInfo) -> TrackerRun:
        """Start the built-in tracker's run."""
        self._inner.start_timeout = self.start_timeout
        started = self._inner.start(run)
        send = started.send

        def failing(records: Sequence[Record]) -> None:
            if self._hangs:
                time.sleep(3600)
            fails = self._left > 0 and self._draw.random() < 0.5
            before = self._draw.random() < 0.5
            if not (fails and before):
                send(records)
            if fails:
                self._left -= 1
                with open(self._told, "ab") as file:
                    file.write(b".")
                raise ConnectionError("an outage")

        started.send = failing  # type: ignore[method-assign]
        return started

    def close(self) -> None:
        """Close the built-in tracker."""
        self._inner.close()
