"""AppConfig and its sections: the schema of a run's configuration, with a default for each field.

These classes are made when keisei is imported, so they are made cheaply: annotations are no
strings, which would be compiled one by one; sections are made by functions, for pydantic would
work out the signature of a class; and the docstrings under the fields are read only when somebody
asks for the JSON schema.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic_core import PydanticCustomError

from keisei.config.layers import Layers
from keisei.config.leaves import OnChange
from keisei.config.media import MediaConfig
from keisei.config.section import (
    OWN_ERROR,
    Delay,
    OptionalPath,
    OptionalText,
    Section,
    SignalName,
    Timeout,
    by_name,
    read_derived_docstrings,
)
from keisei.config.usage import BudgetConfig, CostConfig, MonitoringConfig

LogLevel = Literal["debug", "info", "warning", "error", "critical"]
IfExists = Literal["resume", "refuse", "number"]

WandbMode = Literal["online", "offline", "disabled"]


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _trackers(value: Any) -> Any:
    """Take the trackers by name; see `by_name`."""
    value = by_name(value)
    if isinstance(value, dict):
        kinds = [each.get("tracker") for each in value.values() if isinstance(each, dict)]
        if value.get("wandb") or "wandb" in kinds:
            raise PydanticCustomError(
                OWN_ERROR, "the options of wandb belong to the section `wandb`"
            )
    return value


class EnvConfig(Section):
    """The environment that the run trains in."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Seed of every random generator that the program has imported; unset, none is seeded.
    At most 2**32 - 1, the largest that `numpy.random.seed` takes."""
    device: Annotated[str, Field(min_length=1), OnChange("free")] = "cpu"
    """The device to compute on, as the training code names it (`cpu`, `cuda`, `cuda:1`, `mps`)."""


class TrainingConfig(Section):
    """How long the run trains."""

    total_timesteps: Annotated[int, Field(ge=1), OnChange("free")] = 1_000_000
    """Environment steps in the whole run."""
    steps_per_epoch: Annotated[int, Field(ge=1)] = 2048
    """Environment steps between two updates of the policy."""


class LoggingConfig(Section):
    """The run's name, its directories, keisei's log level and the line of progress."""

    run_name: OptionalText = None
    """The run's name; unset, one is generated that sorts by time."""
    wandb_enabled: bool = False
    """Track the run with Weights & Biases."""
    log_level: Annotated[LogLevel, BeforeValidator(_lowered)] = "info"
    """The level of the standard library's logger `keisei`; no other logger is touched."""
    log_dir: OptionalPath = None
    """The root under which every run has its directory; unset, `runs`.
    The environment variable KEISEI_LOG_DIR comes before it."""
    model_dir: OptionalPath = None
    """The root of the models, which lie in `{model_dir}/{run_name}`; unset, they lie in `models` in
    the run's directory. The environment variable KEISEI_MODEL_DIR comes before it."""
    fallback_dir: OptionalPath = None
    """The root to use where the first one cannot be made or written; unset, that is an error."""
    if_exists: IfExists = "resume"
    """What a session does where the run exists and has no live owner: `resume` it as its next
    attempt, `refuse` to start, or `number` the new run (`name-2`)."""
    owner_timeout: Annotated[float, Field(gt=0, le=604800, allow_inf_nan=False)] | None = None
    """Take up a run whose owner cannot be seen (on another host, in another container) once it has
    shown no sign of life for so many seconds; it has to have this setting, too, and then shows one
    several times in each. Unset, such an owner is taken to live."""
    progress: bool = False
    """Show a line of progress in a terminal while the session logs metrics."""


class WandbConfig(Section):
    """How Weights & Biases tracks the run, where `logging.wandb_enabled` is true."""

    project: Annotated[str, Field(max_length=128, pattern=r"^[^/\\#?%:]+$")] | None = None
    """The project; unset, WANDB_PROJECT, else `keisei`."""
    entity: OptionalText = None
    """The user or team; unset, the login's own."""
    group: OptionalText = None
    """The group that this run belongs to."""
    job_type: OptionalText = None
    """The kind of job in its group, such as `train` or `eval`."""
    tags: list[Annotated[str, Field(min_length=1, max_length=64)]] = []
    """Tags, of 1 to 64 characters each."""
    notes: OptionalText = None
    """Free text about the run."""
    mode: WandbMode | None = None
    """`online`, `offline` or `disabled`; unset, WANDB_DISABLED and WANDB_MODE decide, then the
    SDK's own settings files (`wandb offline`), else online where there is a key or a login, and
    offline where there is none."""
    init_timeout: Timeout = 30.0
    """The timeout for W&B's start, in seconds."""
    finish_timeout: Timeout = 10.0
    """The timeout for W&B's finish at the end of a session, in seconds."""
    offline_fallback: bool = True
    """Where W&B cannot be reached, track the run offline; `keisei sync` uploads it later."""
    in_process: bool = False
    """Run W&B's SDK in the program, for `session.wandb_run` and W&B's sweeps; unset, it runs in a
    host process."""


class TrackingConfig(Section):
    """Which trackers get the run's metrics and events, and whether the session waits for them."""

    wait: bool = True
    """Whether entering a session waits for its trackers to start, W&B included; without it they
    start while the training goes on, and get what was logged meanwhile."""
    finish_timeout: Timeout = 10.0
    """The timeout for each tracker's finish at a session's end, in seconds; W&B has its own."""
    linger: Delay = 30.0
    """How long a tracker's host process goes on after the program, or after a session whose finish
    timed out, to send the backlog in the journal, in seconds."""
    trackers: Annotated[dict[str, dict[str, Any]], BeforeValidator(_trackers)] = {}
    """The trackers by name, each with its options; a list of names will do where none has any.
    The option `tracker` says which one it is, where the name is one of your own: two of a kind.
    `wandb` here is the same as `logging.wandb_enabled`; its options are in the section `wandb`."""


class RegistryConfig(Section):
    """The registry of runs: a database that knows them all, and follows their directories."""

    url: OptionalText = None
    """`sqlite:///PATH` or `postgresql://...`; unset, KEISEI_REGISTRY_URL, else there is none."""
    lease: Annotated[float, Field(ge=1, le=86400, allow_inf_nan=False)] = 30.0
    """The time to live of the run's lease, in seconds: an owner that has not renewed it for so long
    may lose its run to the next start. It renews it three times in that time."""


class SignalsConfig(Section):
    """Which signals end the session, and how long that may take."""

    handle: bool = False
    """Handle SIGINT, SIGTERM and the preemption signals: the first ends the session gracefully."""
    preemption: SignalName | list[SignalName] | None = "SIGUSR2"
    """The signal, or the signals, that end the run as `preempted`; SIGINT and SIGTERM end it as
    `cancelled` where they are not named here. SIGUSR1 is left alone: NCCL and SLURM's scripts use
    it."""
    grace: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 20.0
    """The timeout for the graceful end, in seconds; after it the process ends at once. torchrun
    kills its processes 30 s after a signal, SLURM and Kubernetes 30 s after SIGTERM."""
    others: Literal["after", "instead"] = "after"
    """What becomes of a handler of another library that stands for one of the signals: it is called
    `after` keisei's, or stays `instead` of keisei's, with a warning."""


class JournalConfig(Section):
    """How the journal, the file of the run's metrics and events, is written."""

    durability: Literal["buffered", "line", "fsync"] = "buffered"
    """What a row survives. `buffered`: within `max_delay` of being logged, or when `flush` returns,
    the death of the process; `line`: the same, at once; `fsync`: the loss of power, too."""
    max_delay: Delay = 0.2
    """How long rows are buffered at most before they are written, in seconds."""
    capacity: Annotated[int, Field(ge=1, le=100_000_000)] = 262_144
    """The most rows in the queue that is to be written; it bounds the memory."""
    when_full: Literal["wait", "drop_oldest", "latest"] = "wait"
    """What logging does when the queue is full: `wait` blocks until there is room (at most 10 s,
    and never on a thread whose event loop runs: there the oldest row is dropped), `drop_oldest`
    drops the oldest row, `latest` drops all rows in the queue. The summary counts the dropped."""


class DistributedConfig(Section):
    """How the processes that a launcher has started share one run."""

    detect: bool = True
    """Find rank and world size in the environment of the launcher (torchrun, SLURM, MPI and so on);
    `false`: only what `rank` and `world_size` say."""
    launchers: list[Annotated[str, Field(min_length=1)]] = []
    """Launchers of installed packages (entry points of the group `keisei.launchers`), which are
    asked before keisei's own."""
    rank: Annotated[int, Field(ge=0)] | None = None
    """Which process of the run this is, from 0; unset, what the launcher says."""
    world_size: Annotated[int, Field(ge=1)] | None = None
    """How many processes the run has; unset, what the launcher says."""
    identity: OptionalText = None
    """What tells this launch from all others, the same on all its ranks; unset, the launcher's own
    id."""
    timeout: Timeout = 60.0
    """How long the ranks wait for each other, at the start and at the end, in seconds."""
    track: Literal["none", "all", "mean", "min", "max", "sum", "shared"] = "none"
    """What trackers get of the rows of other ranks and of members: `none`; `all`, with the part's
    name before the metrics' names; or one row for each step, merged over all parts. `shared` is
    `all` for W&B alone, to which each rank then sends its own rows."""
    checkpoint_timeout: Timeout = 600.0
    """How long rank 0 waits for the others' shards of a checkpoint, and they for rank 0, in
    seconds."""
    may_differ: list[Annotated[str, Field(min_length=1)]] = ["env.device", "env.seed"]
    """The fields and sections of the config in which ranks may differ."""
    preempt_file: OptionalPath = None
    """A file whose appearance, or change, is a preemption; a number in it is the deadline, in
    seconds since the epoch."""
    end_time: bool = True
    """Take the end of a SLURM job's time for a preemption, `signals.grace` seconds before it, where
    the session handles signals."""
    requeue: bool = False
    """Ask SLURM to requeue the job once the run has ended as `preempted`."""


class KeepBest(Section):
    """The checkpoints to keep because a metric was best when they were saved."""

    metric: Annotated[str, Field(min_length=1)]
    """The name of the metric, as it is logged (`evaluation/return`)."""
    mode: Literal["min", "max"]
    """Which way it is better: `min` the lower, `max` the higher."""
    count: Annotated[int, Field(ge=1)] = 1
    """How many of the best are kept."""


class CheckpointsConfig(Section):
    """When checkpoints are saved by themselves, and which are kept.

    It is in force once the program has called `setup_auto_checkpointing`.
    """

    interval: Annotated[int, Field(ge=1)] | None = 1000
    """Save at each multiple of so many steps; null for none."""
    at_steps: list[Annotated[int, Field(ge=0)]] = []
    """Save at these steps, too."""
    every_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Save where the last save is so long ago, too, in seconds."""
    at_end: bool = True
    """Save when the run is completed, where the last step is not saved yet."""
    on_preemption: bool = True
    """Save when the preemption signal comes, before the run ends."""
    keep_last: Annotated[int, Field(ge=1)] | None = 3
    """How many of the newest are kept; null keeps all."""
    keep_best: KeepBest | None = None
    """Keep the best by a metric, too. Of the metric, a save by itself takes the value that was
    logged last; a checkpoint without one, or with NaN, is none of the best."""
    keep_every: Annotated[int, Field(ge=1)] | None = None
    """Keep those at the multiples of so many steps, too."""
    remote: OptionalText = None
    """Where each checkpoint is copied to once it is committed: a URL of fsspec's."""


class ProvenanceConfig(Section):
    """What is recorded of the code, the packages and the machine, and what a resume may change."""

    enabled: bool = True
    """Record it; the environment variable KEISEI_PROVENANCE (`on`, `off`) comes before it."""
    timeout: Timeout = 10.0
    """How long git may take before it is killed, in seconds; no session's end waits for that."""
    largest_file: Annotated[int, Field(ge=0, le=2**30)] = 2**20
    """The largest changed or untracked file that is kept, in bytes."""
    largest_total: Annotated[int, Field(ge=0, le=2**30)] = 10 * 2**20
    """How much of such files is kept in all, and of the diff, in bytes."""
    accept_changes: list[Annotated[str, Field(min_length=1)]] = []
    """The keys whose changes a resume takes although their fields refuse or warn of them."""


_FREE = OnChange("free")


class AppConfig(Section):
    """The whole configuration of a run. Derive from it to add sections of your own."""

    env: EnvConfig = Field(default_factory=lambda: EnvConfig())
    """The environment that the run trains in."""
    training: TrainingConfig = Field(default_factory=lambda: TrainingConfig())
    """How long the run trains."""
    logging: Annotated[LoggingConfig, _FREE] = Field(default_factory=lambda: LoggingConfig())
    """The run's name, its directories, keisei's log level and the line of progress."""
    wandb: Annotated[WandbConfig, _FREE] = Field(default_factory=lambda: WandbConfig())
    """How Weights & Biases tracks the run."""
    journal: Annotated[JournalConfig, _FREE] = Field(default_factory=lambda: JournalConfig())
    """How the journal, the file of the run's metrics and events, is written."""
    tracking: Annotated[TrackingConfig, _FREE] = Field(default_factory=lambda: TrackingConfig())
    """Which trackers get what the run logs."""
    registry: Annotated[RegistryConfig, _FREE] = Field(default_factory=lambda: RegistryConfig())
    """The registry that lists the run."""
    signals: Annotated[SignalsConfig, _FREE] = Field(default_factory=lambda: SignalsConfig())
    """Which signals end the session, and how long that may take."""
    checkpoints: Annotated[CheckpointsConfig, _FREE] = Field(
        default_factory=lambda: CheckpointsConfig()
    )
    """When checkpoints are saved by themselves, and which are kept."""
    distributed: Annotated[DistributedConfig, _FREE] = Field(
        default_factory=lambda: DistributedConfig()
    )
    """How the processes of a launch share the run."""
    provenance: Annotated[ProvenanceConfig, _FREE] = Field(
        default_factory=lambda: ProvenanceConfig()
    )
    """What is recorded of the code, the packages and the machine, and what a resume may change."""
    media: Annotated[MediaConfig, _FREE] = Field(default_factory=lambda: MediaConfig())
    """How much of the media that are logged is kept."""
    monitoring: Annotated[MonitoringConfig, _FREE] = Field(
        default_factory=lambda: MonitoringConfig()
    )
    """What is measured of what the run uses."""
    cost: Annotated[CostConfig, _FREE] = Field(default_factory=lambda: CostConfig())
    """What the run's resources cost."""
    budget: Annotated[BudgetConfig, _FREE] = Field(default_factory=lambda: BudgetConfig())
    """How much the run may use before it is ended."""
    _layers: Layers = PrivateAttr(default_factory=Layers)


class OpenConfig(AppConfig):
    """A config that keeps what is not keisei's: fields of the user's own, as plain data.

    A session makes one of a config of another kind, and `load_config(path, model=OpenConfig)` one
    of any file. A field that has the name of one of keisei's sections, but is none, is in `own`.
    """

    model_config = ConfigDict(extra="allow")


# A class that is derived from these has its docstrings read by pydantic, when it is made.
read_derived_docstrings()


def wants_wandb(config: AppConfig) -> bool:
    """Return whether a config asks for W&B."""
    return config.logging.wandb_enabled or "wandb" in config.tracking.trackers
