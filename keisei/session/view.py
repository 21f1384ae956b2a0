"""The read-only half of a session, which both faces share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from keisei.config.schema import AppConfig
from keisei.errors import NotReadyError
from keisei.redaction import clean
from keisei.run.layout import RunPaths
from keisei.run.status import SessionState, Status, session_state
from keisei.session.facts import ConfigT, SessionFacts
from keisei.session.tracking import Tracking

if TYPE_CHECKING:
    import wandb


class SessionView(Generic[ConfigT]):
    """What can be read of a session at any time, from any thread, without waiting."""

    _facts: SessionFacts[ConfigT]
    _tracking: Tracking

    @property
    def config(self) -> ConfigT:
        """The run's config, as it was given to the session."""
        return self._facts.given_config

    @property
    def app_config(self) -> AppConfig:
        """The run's config as keisei goes by it: the given one, where it is an `AppConfig`.

        Of a config of another kind it is an `OpenConfig` that was made of it: keisei's sections
        in force, and the fields of your own as plain data, as they are recorded.
        """
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
        active = self._tracking.wandb_active
        if active is None:
            raise NotReadyError("is_wandb_active is not known yet: call setup_wandb() first")
        return active

    @property
    def wandb_run(self) -> wandb.Run | None:
        """The SDK's run object, with ``wandb.in_process``; ``None`` where W&B is not active.

        Raises TrackerError where W&B is active in a process of its own.
        """
        run: wandb.Run | None = self._tracking.wandb_run()
        return run

    def get_session_summary(self) -> dict[str, Any]:
        """Return what is known of the session as plain data; what is not set up yet is ``None``."""
        facts, owned = self._facts, self._facts.owned
        paths = facts.paths
        trackers, active = self._tracking.records(), self._tracking.wandb_active
        known = trackers.get("wandb") if active else None
        return {
            "run_name": facts.run_name,
            "session_id": facts.session_id,
            "attempt": facts.attempt,
            "rank": None if facts.has_to_import_launchers else facts.rank,
            "world_size": None if facts.has_to_import_launchers else facts.world_size,
            "status": facts.status,
            "started_at": owned and owned.record.started_at,
            "duration_s": facts.elapsed(),
            "failure": facts.failure and facts.failure.model_dump(),
            "run_artifact_dir": paths and paths.run_artifact_dir,
            "model_dir": paths and paths.model_dir,
            "log_file_path": paths and paths.log_file_path,
            "eval_log_file_path": paths and paths.eval_log_file_path,
            "fallback_reason": owned and clean(owned.fallback_reason),
            "is_wandb_active": active,
            "wandb_url": known and known.url,
            "trackers": {name: record.model_dump() for name, record in trackers.items()},
            "seed": facts.config.env.seed,
            "seeded": None if facts.seeded is None else list(facts.seeded),
            "device": clean(facts.config.env.device),
            "logger_errors": facts.logger_errors,
            "torn_lines": owned.torn_lines if owned else 0,
            "provenance": facts.provenance and dict(facts.provenance),
        }

    def _paths(self, asked: str) -> RunPaths:
        if self._facts.paths is None:
            raise NotReadyError(f"{asked} is not set up yet: call setup_directories() first")
        return self._facts.paths
