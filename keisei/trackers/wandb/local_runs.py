"""The runs under a root, with the files in which W&B's SDK keeps their attempts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from keisei._io import files
from keisei.run.find import owner_state
from keisei.run.layout import RECORD_FILE
from keisei.run.session_file import SessionRecord

EMPTY = 7  # bytes: the header alone, of an attempt that was killed at its start
_DIRECTORY = re.compile(r"(offline-)?run-(\d{8}_\d{6})-.+")


@dataclass(frozen=True)
class Attempt:
    """A run file of the SDK's: one attempt of a run.

    Attributes:
        path: the file.
        online: whether the attempt itself sent it to W&B, perhaps not all of it.
        started: when it started, to the second, as text that sorts.
    """

    path: str
    online: bool
    started: str

    @property
    def uploaded(self) -> bool:
        """Whether W&B has got it in full: the SDK's own mark."""
        return os.path.exists(f"{self.path}.synced")

    @property
    def key(self) -> str:
        """What it is called in the run's notes: its directory's name."""
        return os.path.basename(os.path.dirname(self.path))

    @property
    def starting_step(self) -> int | None:
        """The step at which the server told it to begin, where it was online: the SDK's note."""
        try:
            with open(f"{self.path}.syncstate", "rb") as file:
                return int(json.load(file)["starting_step"])
        except (OSError, ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True)
class LocalRun:
    """A run's directory.

    Attributes:
        name: the run's name.
        id: its id.
        directory: an absolute path.
        alive: whether its owner lives.
        attempts: its run files, the oldest first.
    """

    name: str
    id: str
    directory: str
    alive: bool
    attempts: tuple[Attempt, ...]


def find_runs(root: str, wanted: Iterable[str] = ()) -> list[LocalRun]:
    """Find the runs under a root.

    Args:
        root: where runs live.
        wanted: names of runs under the root, or paths of their directories; all where empty.

    Raises:
        FileNotFoundError: a wanted run is not there.
    """
    if names := list(wanted):
        found = [_find(root, name) for name in names]
    else:
        with suppress(FileNotFoundError):
            names = sorted(os.listdir(root))
        found = [run for name in names if (run := _run(os.path.join(root, name)))]
    return list({run.directory: run for run in found}.values())


def _find(root: str, name: str) -> LocalRun:
    for place in (os.path.join(root, name), name):
        if run := _run(place):
            return run
    raise FileNotFoundError(f"there is no run {name!r} under {root!r}, nor at that path")


def _run(place: str) -> LocalRun | None:
    place = os.path.abspath(place)
    try:
        with files.OpenDirectory(place) as directory:
            record = SessionRecord.parsed(directory.read(RECORD_FILE) or b"")
    except OSError:
        return None
    if record is None:
        return None
    owner = record.owner
    alive = record.status == "running" and owner_state(owner) != "died"
    return LocalRun(record.run_name, record.session_id, place, alive, tuple(attempts_in(place)))


def attempts_in(place: str) -> list[Attempt]:
    """Find the run files of a run that are not empty, the oldest first.

    Args:
        place: the run's directory.
    """
    found = []
    above = os.path.join(place, "wandb")
    with suppress(FileNotFoundError):
        for name in os.listdir(above):
            if match := _DIRECTORY.fullmatch(name):
                inside = os.path.join(above, name)
                for file in os.listdir(inside):
                    if file.startswith("run-") and file.endswith(".wandb"):
                        path = os.path.join(inside, file)
                        if os.path.getsize(path) > EMPTY:
                            found.append(Attempt(path, match[1] is None, match[2]))
    return sorted(found, key=lambda attempt: (attempt.started, os.path.getmtime(attempt.path)))


def to_upload(place: str) -> bool:
    """Return whether W&B has not got all of a run's files; an upload tells it of the end, too.

    Args:
        place: the run's directory.
    """
    return any(not attempt.uploaded for attempt in attempts_in(place))
