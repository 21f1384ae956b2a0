"""Why a run did not complete: the error that ended it, and its place in the user's code."""

# No `from __future__ import annotations`: pydantic would compile each annotation by itself.
import sys
import traceback
from os.path import abspath, dirname, join
from types import TracebackType

from pydantic import BaseModel, ConfigDict

from keisei._text import one_line
from keisei.redaction import clean
from keisei.run.status import status_after

EVENT = "keisei/failure"
"""The journal's event that tells the trackers."""

_LONGEST_MESSAGE, _LONGEST_PLACE, _LONGEST_TYPE = 500, 300, 100  # characters
_BEYOND = 4096  # what stands so far behind a cut only matters to what is being hidden
_PACKAGES = ("/site-packages/", "/dist-packages/", "\\site-packages\\")
_KEISEI = dirname(dirname(abspath(__file__)))
_NOT_USERS = tuple(
    join(path, "") for path in (_KEISEI, dirname(traceback.__file__), dirname(sys.executable))
)


class Failure(BaseModel):
    """The error that ended a run: short texts without secrets, each of one line."""

    model_config = ConfigDict(frozen=True)

    type: str
    message: str = ""
    """The error's message; the signal's name where a signal ended the run."""
    place: str | None = None
    """File, line and function of the innermost of the user's own calls that it went through."""

    def __str__(self) -> str:
        text = f"{self.type}: {self.message}" if self.message else self.type
        return f"{text} ({self.place})" if self.place else text


def failure_of(exc: BaseException | None) -> Failure | None:
    """Return why a run ended, from the exception that left its body.

    Args:
        exc: the exception. Of a group, the first leaf that is as bad as the group counts.

    Returns:
        The failure; ``None`` where there is no exception, or one that only cancels or exits.
    """
    group = exc
    while isinstance(exc, BaseExceptionGroup):
        status = status_after(exc)
        exc = next(inner for inner in exc.exceptions if status_after(inner) == status)
    if exc is None or group is None:
        return None
    if isinstance(exc, KeyboardInterrupt):
        return ended_by("SIGINT", exc)
    if status_after(exc) != "failed":
        return None
    return Failure(
        type=_short(type(exc).__name__, _LONGEST_TYPE),
        message=_short(_message(exc), _LONGEST_MESSAGE),
        # One of a group that was never raised itself has no place of its own.
        place=_place(exc.__traceback__ or group.__traceback__),
    )


def ended_by(signal_name: str, exc: BaseException) -> Failure:
    """Return why a run ended at a signal.

    Args:
        signal_name: the signal's name.
        exc: what leaves the session.
    """
    return Failure(type=type(exc).__name__, message=signal_name, place=_place(exc.__traceback__))


def _message(exc: BaseException) -> str:
    try:
        return str.__str__(str(exc))
    except Exception:  # noqa: BLE001 - an error of somebody else's
        return "its message cannot be read"


def _place(tb: TracebackType | None) -> str | None:
    """Return the innermost place of the user's own; else of a library's; else the innermost."""
    best = (-1, "")
    for frame, line in traceback.walk_tb(tb):
        code = frame.f_code
        file = code.co_filename
        if file.startswith(("<frozen ", *_NOT_USERS)):
            rank = 0
        else:
            rank = 1 if any(part in file for part in _PACKAGES) else 2
        if rank >= best[0]:
            best = rank, f"{file}:{line} in {code.co_name}"
    if best[0] < 0:
        return None
    text = one_line(clean(best[1]))
    return text if len(text) <= _LONGEST_PLACE else f"...{text[3 - _LONGEST_PLACE :]}"


def _short(text: str, most: int) -> str:
    """Return a text in one line, secrets hidden before it is cut."""
    line = one_line(clean(text[: most + _BEYOND].strip()))
    return line if len(line) <= most else f"{line[: most - 3]}..."
