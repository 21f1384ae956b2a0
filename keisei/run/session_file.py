"""Who owns a run: the record in `session.json`, and what a new start may do with it."""

# No `from __future__ import annotations`: pydantic would compile each annotation by itself.
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from keisei.config.schema import IfExists
from keisei.errors import SessionInUseError, quoted
from keisei.run.failure import Failure
from keisei.run.names import SESSION_ID, check_run_name
from keisei.run.status import Status


class Owner(BaseModel):
    """The process that runs an attempt."""

    model_config = ConfigDict(frozen=True)

    host: str
    pid: Annotated[int, Field(ge=0)]
    process_start: str
    """When the process started, in a form that two processes of one id never share."""
    kernel: str | None = None
    """The host and the kernel that the process runs under, where that is known."""
    pid_namespace: str | None = None
    """The namespace that its id belongs to, where that is known."""
    machine: str | None = None
    """The machine that it runs on, where one can be told from all others."""
    locked: str | None = None
    """Which directory it has locked for as long as it lives, by device and number."""
    timeout: float | None = None
    """Its `logging.owner_timeout`: it shows a sign of life several times in so many seconds."""


class Lease(BaseModel):
    """The lease that an attempt has in a registry."""

    model_config = ConfigDict(frozen=True)

    epoch: int
    """Each owner of the run has a larger one."""
    ttl: float
    """Its time to live, in seconds."""
    registry: str
    """The registry's own id."""


class TrackerRecord(BaseModel):
    """What one tracker knows of the run."""

    model_config = ConfigDict(frozen=True)

    run_id: str | None = None
    upload_as: str | None = None
    """The id to upload the run under, where `run_id` is a substitute for it."""
    url: str | None = None
    mode: str = "online"
    state: Literal["connecting", "live", "broken", "finished", "abandoned"] = "live"
    """`broken`: it fails or does not answer, and is tried again; `abandoned`: it did not end in
    time, and what it has not sent is in `directory`."""
    directory: str | None = None
    behind: int = 0
    """How many rows and events it has not got yet."""
    problem: str | None = None
    """What went wrong last."""
    media_left_out: int = 0
    """How many images, files and the like it does not show."""


class LaunchRecord(BaseModel):
    """The launch that an attempt belongs to: the processes that a launcher has started together."""

    model_config = ConfigDict(frozen=True)

    launcher: str
    identity: str
    """What tells it from other launches."""
    restart: Annotated[int, Field(ge=0)] = 0
    """How often the launcher has started its processes again."""
    requeues: Annotated[int, Field(ge=0)] = 0
    """How often the scheduler has started the job again."""
    world_size: Annotated[int, Field(ge=1)] = 1
    """How many ranks it has."""
    decided_by: str = ""
    """The variables, or fields of the config, that say rank and world size."""

    def goes_on_from(self, earlier: "LaunchRecord | None") -> bool:
        """Return whether this is a later start of the same launch: that one's ranks are gone."""
        return (
            earlier is not None
            and earlier.identity == self.identity
            and (earlier.requeues, earlier.restart) < (self.requeues, self.restart)
        )


class SessionRecord(BaseModel):
    """The run's own record: the truth from which anything else can be rebuilt."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    format: int = 1
    session_id: Annotated[str, Field(pattern=SESSION_ID)]
    run_name: Annotated[str, AfterValidator(check_run_name)]
    attempt: Annotated[int, Field(ge=1)]
    status: Status
    owner: Owner
    started_at: str
    ended_at: str | None = None
    duration_s: float | None = None
    failure: Failure | None = None
    """Why it ended so, where an error or a signal ended it."""
    paths: dict[str, str]
    trackers: dict[str, TrackerRecord] = {}
    launch: LaunchRecord | None = None
    """The launch that this attempt belongs to, where a launcher has started it."""
    started_by: Literal["start", "resume", "restart", "requeue"] | None = None
    """What has begun this attempt: the run's first start, a resume by hand, the launcher's own
    restart of its processes, or a requeue by the scheduler."""
    lease: Lease | None = None
    """The attempt's lease, where a registry has given it one."""
    fencing: tuple[int, ...] = ()
    """Earlier attempts whose owners may live, while what they have open is being replaced."""

    def text(self) -> bytes:
        """Return the record as the text of its file."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    @staticmethod
    def parsed(text: bytes) -> "SessionRecord | None":
        """Read a record back; ``None`` where the text is not one."""
        try:
            return SessionRecord.model_validate_json(text)
        except ValidationError:
            return None


def started_by(
    earlier: SessionRecord | None, launch: LaunchRecord | None
) -> Literal["start", "resume", "restart", "requeue"]:
    """Return what begins an attempt.

    Args:
        earlier: the record of the attempt before it.
        launch: the launch that it belongs to.
    """
    if earlier is None:
        return "start"
    if launch is None or earlier.launch is None or not launch.goes_on_from(earlier.launch):
        return "resume"
    return "requeue" if launch.requeues > earlier.launch.requeues else "restart"


def may_take(
    record: SessionRecord | None, *, made: bool, alive: bool, if_exists: IfExists, path: str
) -> bool:
    """Decide whether a new start may take a run's directory.

    Args:
        record: the record that stands in the directory.
        made: whether this start has made the directory itself.
        alive: whether the owner in the record lives, as far as can be told.
        if_exists: what the config says of runs that exist.
        path: the directory, for the message.

    Returns:
        ``True`` to take it (as the next attempt where there is a record), ``False`` to try the
        next number.

    Raises:
        SessionInUseError: neither is allowed.
    """
    if record is not None and record.status == "running" and alive:
        if if_exists == "number":
            return False
        raise in_use(record.run_name, record.owner, path)
    if made or if_exists == "resume":
        return True
    if if_exists == "number":
        return False
    raise SessionInUseError(
        f"{quoted(path, 300)} exists, and logging.if_exists is 'refuse'. Use another run name, or "
        "set logging.if_exists to 'resume' or 'number'.",
        path=path,
    )


def in_use(run_name: str, owner: Owner, path: str, *, leased: bool = False) -> SessionInUseError:
    """Return the error that a run has a live owner, with every way out.

    Args:
        run_name: the run's name.
        owner: who owns it.
        path: its directory.
        leased: whether that is so by its lease in a registry.
    """
    whose = f"process {owner.pid} on host {quoted(owner.host)}" if owner.pid else "another process"
    gone = (
        "If it is gone, the run is free as soon as its lease in the registry, which it renews as "
        f"long as it lives, has run out (registry.lease; {quoted(path, 300)})."
        if leased
        else "If it is gone and cannot be seen from here, `keisei doctor --fix --gone HOST` frees "
        f"the runs of its host ({quoted(path, 300)}); with logging.owner_timeout the next start "
        "does it, once it has been silent for so long."
    )
    return SessionInUseError(
        f"run {quoted(run_name)} belongs to {whose}. Wait for it or end it, use another run name, "
        f"or set logging.if_exists to 'number'. {gone}",
        path=path,
        host=owner.host,
        pid=owner.pid,
    )
