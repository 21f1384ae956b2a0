"""The cursor of a run and tracker: a small file in the run's directory, and the lock beside it."""

# No `from __future__ import annotations`: pydantic would compile each annotation by itself.
import json
import os
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, ValidationError

from keisei._io import process
from keisei._io.files import OpenDirectory, write_atomic
from keisei._io.locks import HeldLock, LockedError, hold, is_file_locked
from keisei.errors import quoted
from keisei.journal.records import Position
from keisei.run.session_file import TrackerRecord

_PREFIX, _SUFFIX, _LOCK_SUFFIX = "tracker.", ".json", ".lock"
_OF_PART = "@"  # which `quote` leaves in no name
NOWHERE = Position(0, -1)


class Cursor(BaseModel):
    """How far a tracker has got with a run, and how to start it again."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    attempt: int = NOWHERE.attempt
    seq: int = NOWHERE.seq
    options: dict[str, object] | None = {}
    """What a named tracker is made with; `None` where the program gave the tracker itself."""
    known: TrackerRecord = TrackerRecord()
    rewound: tuple[int, int] = NOWHERE
    """The last resume of the run after which the tracker has dropped, or keeps, what was before."""
    signature: str | None = None
    """That this user has named the tracker and its options here: `trackers.trust.sign`."""

    @property
    def position(self) -> Position:
        """The last record that the tracker was sent."""
        return Position(self.attempt, self.seq)


def load(directory: str, name: str, part: str | None = None) -> Cursor:
    """Return a tracker's cursor; one at the very beginning where there is none.

    Args:
        directory: the run's directory.
        name: the tracker's name.
        part: the part whose rows are meant; ``None`` for the owner's own.

    Raises:
        OSError: it cannot be read.
    """
    with OpenDirectory(directory) as opened:
        text = opened.read(_file(name, part))
    try:
        return Cursor() if text is None else Cursor.model_validate_json(text)
    except ValidationError:
        return Cursor()  # torn by a loss of power: the tracker's own account counts


def store(
    directory: str, name: str, cursor: Cursor, *, sync: bool, part: str | None = None
) -> None:
    """Write a tracker's cursor, whole or not at all; it survives the end of the process.

    Args:
        directory: the run's directory.
        name: the tracker's name.
        cursor: what to store.
        sync: whether it has to survive a loss of power, too.
        part: the part whose rows are meant; ``None`` for the owner's own.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps(cursor.model_dump(), separators=(",", ":"), default=str)
    with OpenDirectory(directory) as opened:
        write_atomic(opened, _file(name, part), text.encode() + b"\n", sync=sync)


def names(directory: str) -> list[str]:
    """Return the names of the trackers that a run has had.

    Args:
        directory: the run's directory.

    Raises:
        OSError: it cannot be read.
    """
    found = sorted(os.listdir(directory))
    return [
        unquote(name[len(_PREFIX) : -len(_SUFFIX)])
        for name in found
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX) and _OF_PART not in name
    ]


def parts(directory: str, name: str) -> list[str]:
    """Return the parts of a run that have sent their rows to a tracker by themselves.

    Args:
        directory: the run's directory.
        name: the tracker's name.

    Raises:
        OSError: the directory cannot be read.
    """
    prefix = _file(name, "", "")
    return [
        found[len(prefix) : -len(_SUFFIX)]
        for found in sorted(os.listdir(directory))
        if found.startswith(prefix) and found.endswith(_SUFFIX)
    ]


def is_delivered(directory: OpenDirectory, name: str, part: str | None = None) -> bool | None:
    """Return whether anybody delivers now; ``None`` where there are no locks.

    Args:
        directory: the run's directory.
        name: the tracker's name.
        part: the part whose rows are meant; ``None`` for the owner's own.

    Raises:
        OSError: the lock's file cannot be opened.
    """
    try:
        return is_file_locked(directory, _file(name, part, _LOCK_SUFFIX))
    except FileNotFoundError:
        return False


def deliverer(
    directory: OpenDirectory, name: str, timeout: float, part: str | None = None
) -> HeldLock:
    """Take the lock that admits one deliverer of a run to a tracker at a time; blocks.

    Args:
        directory: the run's directory.
        name: the tracker's name.
        timeout: how long to wait for another one, in seconds.
        part: the part whose rows are meant; ``None`` for the owner's own.

    Raises:
        LockedError: another one holds it; the message says who.
        OSError: the lock's file cannot be opened.
    """
    about = {"pid": os.getpid(), "host": process.host_name()}
    try:
        file, content = _file(name, part, _LOCK_SUFFIX), json.dumps(about).encode()
        return hold(directory, file, timeout=timeout, content=content)
    except LockedError as exc:
        raise LockedError(f"{_holder(exc.holder)} delivers the run to it") from None


def _holder(content: bytes) -> str:
    try:
        about = json.loads(content)
        return f"process {int(about['pid'])} on host {quoted(str(about['host']))}"
    except (ValueError, TypeError, KeyError):
        return "another process"


def _file(name: str, part: str | None = None, suffix: str = _SUFFIX) -> str:
    of_part = "" if part is None else f"{_OF_PART}{part}"
    return f"{_PREFIX}{quote(name, safe='')[:150]}{of_part}{suffix}"
