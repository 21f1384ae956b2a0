"""The files in which W&B's SDK keeps the attempts of a run."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass

from keisei._io import files
from keisei.trackers import cursor
from keisei.trackers.wandb.mode import NAME

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
        above, name = os.path.split(self.path)
        try:
            with files.OpenDirectory(above) as directory:
                text = directory.read(f"{name}.syncstate")
            return int(json.loads(text or b"{}")["starting_step"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None


@dataclass(frozen=True)
class LocalRun:
    """A run with its run files.

    Attributes:
        name: the run's name.
        id: its id.
        directory: an absolute path.
        alive: whether its owner lives.
        attempts: its run files, the oldest first.
        trusted: whether they may name files outside the run, which are uploaded with them.
    """

    name: str
    id: str
    directory: str
    alive: bool
    attempts: tuple[Attempt, ...]
    trusted: bool = False


def attempts_in(directory: str, *, empty: bool = False) -> list[Attempt]:
    """Return the run files of a run that are not empty, the oldest first.

    Args:
        directory: the run's directory.
        empty: whether those that hold nothing count, too.

    Raises:
        OSError: a directory cannot be read, or a link stands in the place of one or of a file.
    """
    found = []
    above = os.path.join(directory, "wandb")
    for name in _names_in(above) if os.path.lexists(above) else ():
        if match := _DIRECTORY.fullmatch(name):
            inside = os.path.join(above, name)
            for file in _names_in(inside, links=False):
                if file.startswith("run-") and file.endswith(".wandb"):
                    path = os.path.join(inside, file)
                    if empty or os.path.getsize(path) > EMPTY:
                        found.append(Attempt(path, match[1] is None, match[2]))
    return sorted(found, key=lambda attempt: (attempt.started, os.path.getmtime(attempt.path)))


def note_step(directory: str, run_id: str, step: object) -> None:
    """Note the step at which the server told an attempt to begin, where the SDK does not.

    Args:
        directory: where the SDK keeps the attempt's files.
        run_id: the run's id.
        step: the step; anything but a number is not noted.
    """
    if isinstance(step, int):
        with suppress(OSError), files.OpenDirectory(directory) as opened:
            name = f"run-{run_id}.wandb.syncstate"
            if not opened.read(name):
                files.append(opened, name, json.dumps({"starting_step": step}).encode())


def id_of(directory: str, session_id: str) -> str:
    """Return the id that a run has on W&B: the one that the SDK took, else the session's own.

    Args:
        directory: the run's directory.
        session_id: the run's id.
    """
    with suppress(OSError):
        known = cursor.load(directory, NAME).known
        return known.upload_as or known.run_id or session_id
    return session_id


def to_upload(directory: str) -> int:
    """Return how many run files W&B has not got in full; an upload tells it of the end, too.

    Args:
        directory: the run's directory.
    """
    return sum(not attempt.uploaded for attempt in attempts_in(directory))


def _names_in(path: str, *, links: bool = True) -> list[str]:
    """Return the names in a directory, which is no link; nor, unless told so, is what is there."""
    with files.OpenDirectory(path) as directory:
        names = directory.names()
        for name in names if not links else ():
            if stat.S_ISLNK(directory.stat(name).st_mode):
                what = "it is a link, which the SDK would follow"
                raise OSError(errno.ELOOP, what, os.path.join(path, name))
    return names
