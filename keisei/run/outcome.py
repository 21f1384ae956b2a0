"""How the ranks of an attempt end: as the first of them that has not completed, for all to read."""

# No `from __future__ import annotations`: pydantic would compile each annotation by itself.
import errno
import os
from contextlib import suppress
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keisei._io.directories import OpenDirectory
from keisei.run.failure import Failure
from keisei.run.layout import PARTS
from keisei.run.status import FinalStatus

_SETTLED = 5.0  # seconds after which an outcome that cannot be read is not being written any more


class Outcome(BaseModel):
    """How the ranks of an attempt end: the first one that has not completed decides it."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    format: int = 1
    rank: Annotated[int, Field(ge=0)]
    """The rank that decides."""
    what: str
    """What has become of it: `has failed`, `has vanished`."""
    status: FinalStatus = "failed"
    failure: Failure | None = None
    """Its error."""

    def reason(self) -> Failure:
        """Return why the run has ended so: the rank's error, in which the rank is named."""
        if self.failure is None:
            return Failure(type="RankLostError", message=f"rank {self.rank} {self.what}")
        message = f"rank {self.rank}: {self.failure.message}"
        return self.failure.model_copy(update={"message": message})

    def text(self) -> str:
        """Return what has happened, in a sentence."""
        error = f" ({self.failure.type}: {self.failure.message})" if self.failure else ""
        return f"rank {self.rank} {self.what}{error}"


def publish(directory: OpenDirectory, attempt: int, outcome: Outcome) -> Outcome:
    """Publish how the ranks end, unless another one has done so before. It blocks.

    Args:
        directory: the run's directory, held open.
        attempt: which attempt.
        outcome: how they end, as far as this rank knows.

    Returns:
        The outcome that counts: the first one.

    Raises:
        OSError: it cannot be written.
    """
    directory.make(PARTS)
    with directory.inside(PARTS) as parts:
        name = _file_name(attempt)
        try:
            fd = parts.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return _read(parts, name) or outcome
        try:
            os.write(fd, outcome.model_dump_json(indent=2).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        parts.sync()
    return outcome


def published(directory: OpenDirectory, attempt: int) -> Outcome | None:
    """Return how the ranks end, once one of them has published it. It blocks.

    Args:
        directory: the run's directory, held open.
        attempt: which attempt.
    """
    try:
        with directory.inside(PARTS) as parts:
            return _read(parts, _file_name(attempt))
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return None


def _file_name(attempt: int) -> str:
    return f"outcome.{attempt}.json"


def _read(parts: OpenDirectory, name: str) -> Outcome | None:
    text = parts.read(name)
    if text is None:
        return None
    with suppress(ValidationError):
        return Outcome.model_validate_json(text)
    if parts.now() - parts.stat(name).st_mtime < _SETTLED:
        return None  # it is being written
    return Outcome(rank=0, what="or another one has not completed, and its outcome is damaged")
