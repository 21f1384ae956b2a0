"""Forwards what the parts of a run log to its trackers: into the owner's own journal.

Trackers follow that journal alone, each row once and in order, whatever happens; so what they are
to have of the parts is logged there, under names of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal

from keisei._io.held import HeldDirectory
from keisei._log import logger
from keisei.distributed.merging import Part, StepMerger
from keisei.errors import JournalError
from keisei.journal.attempt import AttemptReader
from keisei.journal.merging import Reduction
from keisei.journal.reader import RunJournal
from keisei.journal.records import Value, is_system, of_part
from keisei.journal.superseding import RESUME
from keisei.run.part_file import rank_of
from keisei.run.parts import parts_of

Track = Literal["all", "shared"] | Reduction
Log = Callable[[Mapping[str, object], int | None], object]

INTERVAL = 0.5  # seconds between two looks
MOST = 200  # parts that are followed: each takes a descriptor
_ALIVE = frozenset(["running", "elsewhere"])


class Forwarder:
    """Follows the parts of one attempt, in a thread of its own, from `start` to `stop`.

    Args:
        home: the run's directory.
        attempt: the attempt.
        track: ``all`` logs each row of a part with the part's name before the metrics' names;
            ``shared`` does that for members alone: ranks send their own;
            ``mean``, ``min``, ``max`` and ``sum`` log one row for each step, with that before them.
            What a part uses of its machine comes as `system/PART/...`, and is not merged.
        log: logs a row of the owner's.
    """

    def __init__(self, home: HeldDirectory, attempt: int, track: Track, log: Log) -> None:
        self._home, self._attempt, self._track, self._log = home, attempt, track, log
        self._merger = None if track == "all" or track == "shared" else StepMerger(track)
        self._readers: dict[Part, AttemptReader] = {}
        self._live: set[Part] = set()
        self._warned = False
        self._over, self._ended = threading.Event(), threading.Event()

    def start(self) -> None:
        """Follow the parts from now on."""
        thread = threading.Thread(target=self._run, name="keisei-parts", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._ended.set()
            logger.warning("the parts of the run are not tracked: no thread can be started")

    def stop(self, timeout: float) -> None:
        """Forward what the parts have logged by now, and end; a second call changes nothing.

        Args:
            timeout: the longest wait, in seconds.
        """
        self._over.set()
        self._ended.wait(timeout)

    def _run(self) -> None:
        try:
            last = False
            while not last:
                last = self._over.wait(INTERVAL)
                try:
                    self._look(last=last)
                except OSError as exc:
                    if not self._warned:
                        self._warned = True
                        logger.warning("what parts of the run log is not tracked now: %s", exc)
        except JournalError:
            pass  # the session has ended
        finally:
            for reader in self._readers.values():
                reader.close()
            self._ended.set()

    def _look(self, *, last: bool) -> None:
        with self._home.entered() as directory:
            path = directory.path
            found = parts_of(directory, self._attempt)
        self._live = {None, *(part.part for part in found if part.state in _ALIVE)}
        self._open(path)
        for part, reader in self._readers.items():
            self._read(part, reader)
        if self._merger is not None:
            for step, values in self._merger.take(self._live, time.monotonic(), everything=last):
                self._log({f"{self._track}/{key}": value for key, value in values.items()}, step)

    def _open(self, path: str) -> None:
        """Open the journals that have come since."""
        run = RunJournal(path)
        names: list[Part] = [*run.parts()]
        if self._track == "shared":
            names = [part for part in names if part is not None and rank_of(part) is None]
        if self._merger is not None:
            names.insert(0, None)
        for part in names:
            if part in self._readers:
                continue
            if len(self._readers) > MOST:
                if not self._warned:
                    self._warned = True
                    text = "the run has more than %d parts: what others log is not tracked"
                    logger.warning(text, MOST)
                return
            with suppress(FileNotFoundError):  # it has none in this attempt
                self._readers[part] = AttemptReader(path, self._attempt, part=part)

    def _read(self, part: Part, reader: AttemptReader) -> None:
        """Read what a part has logged since."""
        own = f"{self._track}/"
        for batch in reader.batches(events=part is None):
            if any(event[1] == RESUME for event in batch.events) and self._merger is not None:
                self._merger.reset()
            keys = reader.keys(batch)
            for raw in batch.rows:
                values: dict[str, Value] = dict(zip(keys, raw[1:-1], strict=True))  # type: ignore[arg-type]
                step: int | None = raw[-1]  # type: ignore[assignment]
                if self._merger is None:
                    self._log({of_part(str(part), key): one for key, one in values.items()}, step)
                elif not is_system(keys):
                    if part is None:
                        values = {k: v for k, v in values.items() if not k.startswith(own)}
                    self._merger.add(part, values, step, time.monotonic())
