"""How far a tracker has got with a run: a small file in the run's directory, one per tracker."""

from __future__ import annotations

import json
import os
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, ValidationError

from keisei._io.files import OpenDirectory, write_atomic
from keisei.journal.reader import Position
from keisei.run.session_file import TrackerRecord

_PREFIX, _SUFFIX = "tracker.", ".json"
NOWHERE = Position(0, -1)


class Cursor(BaseModel):
    """What is kept of a tracker: how far it has got, and how to start it again."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    attempt: int = NOWHERE.attempt
    seq: int = NOWHERE.seq
    options: dict[str, object] | None = {}
    """What a named tracker is made with; `None` where the program gave the tracker itself."""
    known: TrackerRecord = TrackerRecord()

    @property
    def position(self) -> Position:
        """The last record that the tracker was given."""
        return Position(self.attempt, self.seq)


def load(directory: str, name: str) -> Cursor:
    """Give a tracker's cursor; one at the very beginning where there is none.

    Args:
        directory: the run's directory.
        name: the tracker's name.

    Raises:
        OSError: it cannot be read.
    """
    with OpenDirectory(directory) as opened:
        text = opened.read(_file(name))
    try:
        return Cursor() if text is None else Cursor.model_validate_json(text)
    except ValidationError:
        return Cursor()  # torn by a loss of power: the tracker's own account counts


def store(directory: str, name: str, cursor: Cursor) -> None:
    """Write a tracker's cursor, whole or not at all; it survives the end of the process.

    Args:
        directory: the run's directory.
        name: the tracker's name.
        cursor: what to keep.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(cursor.model_dump(), separators=(",", ":"), default=str)
    with OpenDirectory(directory) as opened:
        write_atomic(opened, _file(name), text.encode() + b"\n", sync=False)


def names(directory: str) -> list[str]:
    """Give the names of the trackers that a run has had.

    Args:
        directory: the run's directory.

    Raises:
        OSError: it cannot be read.
    """
    found = sorted(os.listdir(directory))
    return [
        unquote(name[len(_PREFIX) : -len(_SUFFIX)])
        for name in found
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX)
    ]


def _file(name: str) -> str:
    return f"{_PREFIX}{quote(name, safe='')[:150]}{_SUFFIX}"
