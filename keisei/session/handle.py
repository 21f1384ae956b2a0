"""What another process needs to log to a run: a small value, which is checked before it is used."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, fields

from keisei.config.media import MediaConfig
from keisei.config.schema import JournalConfig
from keisei.errors import HandleError, InvalidRunNameError, quoted
from keisei.monitoring.money import currency_of
from keisei.run.names import SESSION_ID, check_run_name

_MOST_ATTEMPTS = 10**9
_SETTINGS = ("durability", "max_delay", "capacity", "when_full")
_MEDIA = ("largest_file", "largest_total", "queue")  # with `media_` before them


@dataclass(frozen=True)
class RunHandle:
    """A run that lives, as another process, an actor or a host joins it; without secrets.

    `session.handle()` makes it. It is small, pickles, and may be sent wherever the run's directory
    is seen under the same path.

    Attributes:
        run_name: the run's name.
        session_id: its id.
        attempt: which attempt of it.
        directory: the run's directory, absolute.
        durability: as the config's `journal.durability`, and so are the rest:
        max_delay: `journal.max_delay`, in seconds.
        capacity: `journal.capacity`, in rows.
        when_full: `journal.when_full`.
        media_largest_file: `media.largest_file`, in bytes.
        media_largest_total: `media.largest_total`, in bytes.
        media_queue: `media.queue`, in bytes.
        currency: `cost.currency`.
    """

    run_name: str
    session_id: str
    attempt: int
    directory: str
    durability: str = "buffered"
    max_delay: float = 0.2
    capacity: int = 262_144
    when_full: str = "wait"
    media_largest_file: int = 256 * 2**20
    media_largest_total: int = 32 * 2**30
    media_queue: int = 256 * 2**20
    currency: str = "USD"


def checked(handle: object) -> tuple[RunHandle, JournalConfig, MediaConfig]:
    """Return a handle that is one, and how its journals and media are written.

    A handle comes from elsewhere: nothing of it is used before this.

    Raises:
        HandleError: it is none, or damaged.
    """
    if not isinstance(handle, RunHandle):
        raise HandleError(
            f"a member needs a handle of its run, and not a {type(handle).__name__}: take the one "
            "that session.handle() returns"
        )
    missing = [field.name for field in fields(RunHandle) if not hasattr(handle, field.name)]
    if missing:
        raise _damaged(f"it has no {', '.join(missing)}")
    try:
        check_run_name(handle.run_name)
        if type(handle.session_id) is not str or not re.fullmatch(SESSION_ID, handle.session_id):
            raise _damaged(f"{quoted(handle.session_id)} is no run's id")
        if type(handle.attempt) is not int or not 0 < handle.attempt < _MOST_ATTEMPTS:
            raise _damaged(f"{quoted(handle.attempt)} is no attempt")
        _check_directory(handle.directory, handle.run_name)
        settings = {name: getattr(handle, name) for name in _SETTINGS}
        currency_of(handle.currency)
        media = {name: getattr(handle, f"media_{name}") for name in _MEDIA}
        journal = JournalConfig.model_validate(settings)
        return handle, journal, MediaConfig.model_validate(media)
    except InvalidRunNameError as exc:
        raise _damaged(str(exc)) from None
    except ValueError as exc:
        if isinstance(exc, HandleError):
            raise
        problem = "how its journal or media are to be written, or its currency, makes no sense"
        raise _damaged(problem) from None


def _check_directory(directory: object, run_name: str) -> None:
    """Check that a path is a run's: absolute, without detours, and ending in the run's name."""
    if type(directory) is not str or "\0" in directory or not os.path.isabs(directory):
        raise _damaged(f"{quoted(directory, 300)} is no absolute path")
    if os.path.normpath(directory) != directory or os.path.basename(directory) != run_name:
        raise _damaged(f"{quoted(directory, 300)} is not the directory of run {quoted(run_name)}")


def _damaged(problem: str) -> HandleError:
    return HandleError(
        f"this handle is damaged or forged: {problem}. Take the one that session.handle() returns"
    )
