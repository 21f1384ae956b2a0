"""What the ranks of a launch agree on: the file in which rank 0 publishes its run."""

# No `from __future__ import annotations`: pydantic would compile each annotation by itself.
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from keisei.distributed.launchers import Launch
from keisei.errors import RankMismatchError, quoted
from keisei.run.names import SESSION_ID, check_run_name
from keisei.run.session_file import Owner

DIRECTORY = ".launches"  # under the root; no run can have such a name
_NAME = re.compile(r"([0-9a-f]{32})\.(\d{1,10})\.(\d{1,10})\.(\d{1,10})\.json")
_UNSET = object()
_MOST = 5  # differences that a message shows
# What is rank 0's alone, or of no consequence; the run's name is compared by itself.
_NOT_COMPARED = (
    *("distributed.rank", "logging.log_level", "logging.progress", "logging.run_name"),
    *("logging.wandb_enabled", "tracking", "wandb", "registry"),
)


class Terms(NamedTuple):
    """What all ranks of a launch have to have in common.

    Attributes:
        name: the run's name, where one was chosen.
        world_size: how many ranks there are.
        version: keisei's version.
        config: the config as plain data, secrets hidden.
    """

    name: str | None
    world_size: int
    version: str
    config: Mapping[str, Any]


class Agreement(BaseModel):
    """What rank 0 has published: itself, its terms, and the run, once that is its own."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    format: int = 1
    launcher: str
    identity: str
    owner: Owner
    """The process that is rank 0."""
    name: str | None
    """The run's name, where one was chosen."""
    world_size: Annotated[int, Field(ge=1)]
    version: str
    config: dict[str, Any]
    """The config, secrets hidden."""
    run_name: Annotated[str, AfterValidator(check_run_name)] | None = None
    """The run's name, as it has become; ``None`` until the run is rank 0's own."""
    session_id: Annotated[str, Field(pattern=SESSION_ID)] | None = None
    attempt: Annotated[int, Field(ge=1)] = 1
    directory: str | None = None
    """The run's directory."""
    problem: str | None = None
    """Why rank 0 has no run."""

    def text(self) -> bytes:
        """Return the agreement as the text of its file."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    @staticmethod
    def parsed(text: bytes) -> "Agreement | None":
        """Read an agreement back; ``None`` where the text is not one."""
        try:
            return Agreement.model_validate_json(text)
        except ValidationError:
            return None


def digest(identity: str) -> str:
    """Return what stands for a launch's identity in the names of files."""
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def file_name(launch: Launch, number: int) -> str:
    """Return the name of the file in which a session of a launch is agreed on.

    Args:
        launch: the launch.
        number: which of the sessions that each rank has started, from 0.
    """
    return f"{digest(launch.identity)}.{launch.requeues}.{launch.restart}.{number}.json"


def earlier_files(names: Iterable[str], launch: Launch, number: int) -> list[str]:
    """Return the files of the starts of a launch before this one, the latest first.

    Args:
        names: the names of all files.
        launch: the launch, as it is started now.
        number: which of its sessions.
    """
    own, earlier = (launch.requeues, launch.restart), []
    for name in names:
        found = _NAME.fullmatch(name)
        if found and found[1] == digest(launch.identity) and int(found[4]) == number:
            start = int(found[2]), int(found[3])
            if start < own:
                earlier.append((start, name))
    return [name for _, name in sorted(earlier, reverse=True)]


def check_terms(agreement: Agreement, own: Terms, rank: int, may_differ: Iterable[str]) -> None:
    """Check that this rank has started as rank 0 has.

    Args:
        agreement: what rank 0 has published.
        own: what this rank has started with.
        rank: this rank.
        may_differ: the fields and sections of the config in which ranks may differ.

    Raises:
        RankMismatchError: it has not; the error has both values.
    """
    values = dict(_differences(agreement, own, (*may_differ, *_NOT_COMPARED)))
    if not values:
        return
    shown = [
        f"{name} is {theirs} on rank 0, and {mine} on rank {rank}"
        for name, (theirs, mine) in list(values.items())[:_MOST]
    ]
    more = f" (and {len(values) - _MOST} more)" if len(values) > _MOST else ""
    raise RankMismatchError(
        f"the ranks of one run have started differently: {'; '.join(shown)}{more}. Start all with "
        "the same program and config; distributed.may_differ names the fields in which ranks may "
        "differ",
        values=values,
    )


def _differences(
    agreement: Agreement, own: Terms, excepted: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, str]]]:
    theirs = Terms(agreement.name, agreement.world_size, agreement.version, agreement.config)
    labels = ("the run's name", "the world size", "keisei's version")
    for label, one, other in zip(labels, theirs, own, strict=False):
        if one != other and (other is not None or label != labels[0]):
            yield label, (_shown(one), _shown(other))
    fields, mine = dict(_fields(theirs.config)), dict(_fields(own.config))
    for name in dict.fromkeys([*fields, *mine]):
        one, other = fields.get(name, _UNSET), mine.get(name, _UNSET)
        if one != other and not any(f"{name}.".startswith(f"{path}.") for path in excepted):
            yield name, (_shown(one), _shown(other))


def _shown(value: object) -> str:
    """Return a value as it may stand in a message."""
    if value is _UNSET:
        return "unset"
    return quoted(value) if isinstance(value, str) else quoted(value)[1:-1]


def _fields(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a config, each with the names above it."""
    for name, value in data.items():
        where = f"{above}.{name}" if above else name
        if isinstance(value, dict):
            yield from _fields(value, where)
        else:
            yield where, value
