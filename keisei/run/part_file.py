"""The parts of a run: what they are called, and what the file of a part's state says.

A run is one process's own, and others write parts of it, each in files of its own: the ranks of a
launch (`rank3`), and members, which are called by their role (`rollout-3`).
"""

# No `from __future__ import annotations`: pydantic would compile each annotation by itself.
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from keisei.errors import InvalidRoleError, InvalidRunNameError, quoted
from keisei.journal.merging import part_of_rank as part_of_rank
from keisei.run.failure import Failure
from keisei.run.names import SESSION_ID, check_run_name
from keisei.run.session_file import Owner
from keisei.run.status import FinalStatus

_RANK = re.compile(r"rank(0|[1-9][0-9]{0,8})")
_RANKS_OWN = re.compile(r"rank[0-9]+(\..*)?", re.IGNORECASE)
# Files of a run have these in the place of a part, or could be taken for one that has.
_RESERVED = frozenset(["superseded", "owner", "all"])
_FILE = re.compile(r"([1-9][0-9]{0,8})\.([A-Za-z0-9][A-Za-z0-9._-]{0,127})\.json")


def rank_of(part: str) -> int | None:
    """Return the rank whose part is called so; ``None`` where it is a member's."""
    found = _RANK.fullmatch(part)
    return int(found[1]) if found else None


def check_role(role: object) -> str:
    """Return the role if it can name a member's files on every system.

    Raises:
        InvalidRoleError: it cannot; the message quotes it escaped and says what is legal.
    """
    try:
        name = check_run_name(role)
    except InvalidRunNameError as exc:
        raise InvalidRoleError(
            f"illegal role {quoted(role)}: a role has what a run name may have ({exc})"
        ) from None
    if _RANKS_OWN.fullmatch(name) or name.partition(".")[0].lower() in _RESERVED:
        raise InvalidRoleError(
            f"the role {quoted(name)} is reserved: ranks are `rank0`, `rank1`, ..., and "
            f"{', '.join(sorted(_RESERVED))} are keisei's own. Use another one, such as 'rollout-3'"
        )
    return name


def check_part(part: str) -> str:
    """Return the part's name if it is a rank's, or a legal role."""
    return part if _RANK.fullmatch(part) else check_role(part)


def state_file(attempt: int, part: str) -> str:
    """Return the name of the file of a part's state, in the directory of parts."""
    return f"{attempt}.{part}.json"


def lock_file(attempt: int, part: str) -> str:
    """Return the name of the file that a part's process has locked for as long as it lives."""
    return f"{attempt}.{part}.lock"


def part_in(name: str) -> tuple[int, str] | None:
    """Return the attempt and the part whose state the file has; ``None`` where it is none."""
    found = _FILE.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


class PartRecord(BaseModel):
    """What the file of a part's state says: who writes the part, and how that has ended."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    format: int = 1
    part: Annotated[str, AfterValidator(check_part)]
    rank: Annotated[int, Field(ge=0)] | None = None
    """The rank of whom it is; ``None`` where it is a member's."""
    session_id: Annotated[str, Field(pattern=SESSION_ID)]
    """The run's id."""
    attempt: Annotated[int, Field(ge=1)]
    """The run's attempt that it is a part of."""
    status: Literal["running"] | FinalStatus = "running"
    owner: Owner
    """The process that writes it; `locked` says which file that has locked."""
    started_at: str
    ended_at: str | None = None
    failure: Failure | None = None
    """Why it ended so, where an error or a signal ended it."""

    @property
    def role(self) -> str | None:
        """The member's role; ``None`` where it is a rank's part."""
        return self.part if self.rank is None else None

    def text(self) -> bytes:
        """Return the record as the text of its file."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    @staticmethod
    def parsed(text: bytes) -> "PartRecord | None":
        """Read a record back; ``None`` where the text is not one."""
        try:
            return PartRecord.model_validate_json(text)
        except ValidationError:
            return None
