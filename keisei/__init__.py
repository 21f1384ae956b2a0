"""keisei owns the life of a training run: its name, directory, config, seeds, logs and end.

All public names are imported here and at once, so that none is imported on a running loop later.
"""

from keisei._version import __version__ as __version__
from keisei.checkpoints.values import Checkpoint, Restored
from keisei.config.loading import load_config
from keisei.config.schema import (
    AppConfig,
    CheckpointsConfig,
    EnvConfig,
    JournalConfig,
    KeepBest,
    LoggingConfig,
    Section,
    SignalsConfig,
    TrackingConfig,
    TrainingConfig,
    WandbConfig,
)
from keisei.errors import (
    CheckpointError,
    ConfigError,
    ConfigSaveError,
    DirectorySetupError,
    ForkedSessionError,
    InvalidRunNameError,
    InvalidStatusError,
    JournalError,
    KeiseiError,
    MissingExtraError,
    NoThreadError,
    NotReadyError,
    QueryError,
    RegistryError,
    SessionEndedError,
    SessionInUseError,
    SignalError,
    TakenOverError,
    TrackerError,
)
from keisei.run.names import generate_run_name
from keisei.run.status import FinalStatus, SessionState, Status
from keisei.store.registry import AsyncRegistry, Registry
from keisei.store.rows import MetricSummary, RunRow
from keisei.training.session_manager import AsyncSessionManager, SessionManager

__all__ = [
    "AppConfig",
    "AsyncRegistry",
    "AsyncSessionManager",
    "Checkpoint",
    "CheckpointError",
    "CheckpointsConfig",
    "ConfigError",
    "ConfigSaveError",
    "DirectorySetupError",
    "EnvConfig",
    "FinalStatus",
    "ForkedSessionError",
    "InvalidRunNameError",
    "InvalidStatusError",
    "JournalConfig",
    "JournalError",
    "KeepBest",
    "KeiseiError",
    "LoggingConfig",
    "MetricSummary",
    "MissingExtraError",
    "NoThreadError",
    "NotReadyError",
    "QueryError",
    "Registry",
    "RegistryError",
    "Restored",
    "RunRow",
    "Section",
    "SessionEndedError",
    "SessionInUseError",
    "SessionManager",
    "SessionState",
    "SignalError",
    "SignalsConfig",
    "Status",
    "TakenOverError",
    "TrackerError",
    "TrackingConfig",
    "TrainingConfig",
    "WandbConfig",
    "generate_run_name",
    "load_config",
]
