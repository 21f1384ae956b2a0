"""The file in a run's directory that asks its session to end, from wherever the directory is seen.

`keisei cancel` writes it, and each rank of a run that is preempted, for the others. It is of one
attempt: the next one does not look at it.
"""

# No `from __future__ import annotations`: pydantic would compile each annotation by itself.
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei.run.layout import STOP_FILE
from keisei.run.session_file import SessionRecord


class StopRequest(BaseModel):
    """A request that a run's session ends."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    session_id: str
    attempt: Annotated[int, Field(ge=1)]
    status: Literal["cancelled", "preempted"]
    source: Annotated[str, Field(min_length=1, max_length=300)]
    """Who asks for it, or what has told the preemption."""
    deadline: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """When the process has to be over, in seconds since the epoch; null where it may go on."""
    saves_for: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """How long a cancelled run may go on to a safe point that is saved, in seconds."""
    asked_at: str

    def is_for(self, record: SessionRecord) -> bool:
        """Return whether it is for the attempt that a session file is of."""
        return (self.session_id, self.attempt) == (record.session_id, record.attempt)


def write_request(directory: OpenDirectory, request: StopRequest) -> None:
    """Write a request, in place of one that stands there; all ranks may do so at once.

    Raises:
        OSError: it cannot be written.
    """
    mark = directory.mark
    directory.mark = f"{mark}.{uuid4().hex[:8]}"  # one temporary name would be every rank's
    try:
        files.write_atomic(directory, STOP_FILE, request.model_dump_json(indent=2).encode() + b"\n")
    finally:
        directory.mark = mark


def read_request(directory: OpenDirectory) -> StopRequest | None:
    """Return the request that stands in a run's directory; ``None`` where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    text = directory.read(STOP_FILE)
    try:
        return None if text is None else StopRequest.model_validate_json(text)
    except ValidationError as exc:
        problem = exc.errors(include_input=False, include_url=False)[0]["msg"]
        raise ValueError(f"{STOP_FILE} is no request: {problem}") from None
