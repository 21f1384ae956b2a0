"""The read-only half of a session, which both faces share."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from keisei.config.schema import AppConfig
from keisei.errors import ForkedSessionError, NotReadyError
from keisei.redaction import clean
from keisei.run.layout import RunPaths
from keisei.run.session_file import TrackerRecord
from keisei.run.status import SessionState, Status, Step, session_state

if TYPE_CHECKING:
    import wandb

ConfigT = TypeVar("ConfigT", bound=AppConfig)


class TrackersView(Protocol):
    """What can be read of a session's trackers."""

    @property
    def wandb_active(self) -> bool | None:
        """Whether W&B tracks the run; ``None`` before its step."""

    def wandb_run(self) -> wandb.Run | None:
        """Return the SDK's run, where it is in the program."""

    def records(self) -> dict[str, TrackerRecord]:
        """Return what is known of each tracker by now."""


@dataclass
class SessionFacts(Generic[ConfigT]):
    """What is known of a session by now; only the async face writes it.

    Attributes:
        config: the run's config.
        args: the program's arguments, as they were given.
        run_name: the run's name; numbering can change it when the directories are claimed.
        session_id: the run's id; a resumed run's own from when the directories are claimed.
        attempt: which start of the run this is.
        status: where it is in its life.
        done: the steps taken.
        paths: its paths, once claimed.
        fallback_reason: why the fallback root is used.
        started_at: when it was claimed, ISO 8601 with offset.
        started: the monotonic clock at that moment, in seconds.
        duration_s: how long it took, once it has ended.
        seeded: what was seeded.
        tracking: what is known of the session's trackers by now.
        logger_errors: how often the user's logger has raised.
        torn_lines: how many of the run's logs had a torn last line, which the claim has closed.
        process: the process that the session belongs to.
    """

    config: ConfigT
    args: object = field(repr=False)
    run_name: str
    session_id: str
    attempt: int = 1
    status: Status = "created"
    done: set[Step] = field(default_factory=set)
    paths: RunPaths | None = None
    fallback_reason: str | None = None
    started_at: str | None = None
    started: float | None = None
    duration_s: float | None = None
    seeded: tuple[str, ...] | None = None
    tracking: TrackersView | None = None
    logger_errors: int = 0
    torn_lines: int = 0
    process: int = field(default_factory=os.getpid)

    def forked(self) -> bool:
        """Tell whether this process was forked from the session's own."""
        return os.getpid() != self.process

    def check_process(self, step: str) -> None:
        """Check that this process is the session's own.

        Raises:
            ForkedSessionError: it was forked from it.
        """
        if self.forked():
            raise ForkedSessionError(
                f"{step}: run {self.run_name} belongs to process {self.process}, which has forked "
                "this one. Call it there, or start a session of its own, with another name, here."
            )

    def elapsed(self) -> float | None:
        """Give the time since the start, in seconds, by the monotonic clock."""
        if self.duration_s is not None or self.started is None:
            return self.duration_s
        return time.monotonic() - self.started


class SessionView(Generic[ConfigT]):
    """What can be read of a session at any time, from any thread, without waiting."""

    _facts: SessionFacts[ConfigT]

    @property
    def config(self) -> ConfigT:
        """The run's config."""
        return self._facts.config

    @property
    def args(self) -> object:
        """The program's arguments, as they were given."""
        return self._facts.args

    @property
    def run_name(self) -> str:
        """The run's name."""
        return self._facts.run_name

    @property
    def session_id(self) -> str:
        """The run's id, a ULID that sorts by time; a resumed run's from `setup_directories` on."""
        return self._facts.session_id

    @property
    def status(self) -> Status:
        """`created`, `running`, or how the run ended."""
        return self._facts.status

    @property
    def state(self) -> SessionState:
        """Which steps the session has taken, and whether it is between its start and its end."""
        return session_state(self._facts.done, self._facts.status)

    @property
    def run_artifact_dir(self) -> str:
        """The run's directory, absolute. Raises NotReadyError before `setup_directories`."""
        return self._paths("run_artifact_dir").run_artifact_dir

    @property
    def model_dir(self) -> str:
        """Where the models live, absolute. Raises NotReadyError before `setup_directories`."""
        return self._paths("model_dir").model_dir

    @property
    def log_file_path(self) -> str:
        """The training log, absolute. Raises NotReadyError before `setup_directories`."""
        return self._paths("log_file_path").log_file_path

    @property
    def eval_log_file_path(self) -> str:
        """The evaluation log, absolute. Raises NotReadyError before `setup_directories`."""
        return self._paths("eval_log_file_path").eval_log_file_path

    @property
    def is_wandb_active(self) -> bool:
        """Whether W&B tracks this run. Raises NotReadyError before `setup_wandb`."""
        tracking = self._facts.tracking
        active = None if tracking is None else tracking.wandb_active
        if active is None:
            raise NotReadyError("is_wandb_active is not known yet: call setup_wandb() first")
        return active

    @property
    def wandb_run(self) -> wandb.Run | None:
        """The SDK's run object, with ``wandb.in_process``; ``None`` where W&B is not active.

        Raises TrackerError where W&B is active in a process of its own.
        """
        return None if self._facts.tracking is None else self._facts.tracking.wandb_run()

    def get_session_summary(self) -> dict[str, Any]:
        """Give what is known of the session as plain data; what is not set up yet is ``None``."""
        facts = self._facts
        paths = facts.paths
        tracking = facts.tracking
        trackers = {} if tracking is None else tracking.records()
        active = None if tracking is None else tracking.wandb_active
        known = trackers.get("wandb") if active else None
        return {
            "run_name": facts.run_name,
            "session_id": facts.session_id,
            "attempt": facts.attempt,
            "status": facts.status,
            "started_at": facts.started_at,
            "duration_s": facts.elapsed(),
            "run_artifact_dir": paths and paths.run_artifact_dir,
            "model_dir": paths and paths.model_dir,
            "log_file_path": paths and paths.log_file_path,
            "eval_log_file_path": paths and paths.eval_log_file_path,
            "fallback_reason": clean(facts.fallback_reason),
            "is_wandb_active": active,
            "wandb_url": known and known.url,
            "trackers": {name: record.model_dump() for name, record in trackers.items()},
            "seed": facts.config.env.seed,
            "seeded": None if facts.seeded is None else list(facts.seeded),
            "device": clean(facts.config.env.device),
            "logger_errors": facts.logger_errors,
            "torn_lines": facts.torn_lines,
        }

    def _paths(self, asked: str) -> RunPaths:
        if self._facts.paths is None:
            raise NotReadyError(f"{asked} is not set up yet: call setup_directories() first")
        return self._facts.paths
