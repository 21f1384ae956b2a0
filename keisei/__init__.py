"""keisei owns the life of a training run: its name, directory, config, seeds, logs and end.

All public names are imported here and at once, so that none is imported on a running loop later.
"""

from keisei._version import __version__ as __version__
from keisei.checkpoints.values import Checkpoint, Restored
from keisei.config.leaves import OnChange
from keisei.config.loading import load_config
from keisei.config.media import MediaConfig
from keisei.config.schema import (
    AppConfig,
    CheckpointsConfig,
    DistributedConfig,
    EnvConfig,
    JournalConfig,
    KeepBest,
    LoggingConfig,
    ProvenanceConfig,
    SignalsConfig,
    TrackingConfig,
    TrainingConfig,
    WandbConfig,
)
from keisei.config.section import Section
from keisei.config.usage import BudgetConfig, CostConfig, MonitoringConfig
from keisei.distributed.preemption import Preempting
from keisei.errors import (
    CheckpointError,
    ConfigChangedError,
    ConfigError,
    ConfigSaveError,
    DirectorySetupError,
    DistributedError,
    ForkedSessionError,
    HandleError,
    InvalidRoleError,
    InvalidRunNameError,
    InvalidStatusError,
    JournalError,
    KeiseiError,
    LaunchError,
    MediaError,
    MissingExtraError,
    NoThreadError,
    NotReadyError,
    PartInUseError,
    ProvenanceError,
    QueryError,
    RankLostError,
    RankMismatchError,
    RankTimeoutError,
    RegistryError,
    RunCancelledError,
    RunEndedError,
    RunNotSeenError,
    SessionEndedError,
    SessionInUseError,
    SignalError,
    TakenOverError,
    TrackerError,
    WorldSizeError,
)
from keisei.run.names import generate_run_name
from keisei.run.status import FinalStatus, SessionState, Status
from keisei.session.blocking_member import SessionMember
from keisei.session.handle import RunHandle
from keisei.session.member import AsyncSessionMember
from keisei.store.registry import AsyncRegistry, Registry
from keisei.store.rows import MetricSummary, RunRow
from keisei.training.session_manager import AsyncSessionManager, SessionManager

__all__ = [
    "AppConfig",
    "AsyncRegistry",
    "AsyncSessionManager",
    "AsyncSessionMember",
    "BudgetConfig",
    "Checkpoint",
    "CheckpointError",
    "CheckpointsConfig",
    "ConfigChangedError",
    "ConfigError",
    "ConfigSaveError",
    "CostConfig",
    "DirectorySetupError",
    "DistributedConfig",
    "DistributedError",
    "EnvConfig",
    "FinalStatus",
    "ForkedSessionError",
    "HandleError",
    "InvalidRoleError",
    "InvalidRunNameError",
    "InvalidStatusError",
    "JournalConfig",
    "JournalError",
    "KeepBest",
    "KeiseiError",
    "LaunchError",
    "LoggingConfig",
    "MediaConfig",
    "MediaError",
    "MetricSummary",
    "MissingExtraError",
    "MonitoringConfig",
    "NoThreadError",
    "NotReadyError",
    "OnChange",
    "PartInUseError",
    "Preempting",
    "ProvenanceConfig",
    "ProvenanceError",
    "QueryError",
    "RankLostError",
    "RankMismatchError",
    "RankTimeoutError",
    "Registry",
    "RegistryError",
    "Restored",
    "RunCancelledError",
    "RunEndedError",
    "RunHandle",
    "RunNotSeenError",
    "RunRow",
    "Section",
    "SessionEndedError",
    "SessionInUseError",
    "SessionManager",
    "SessionMember",
    "SessionState",
    "SignalError",
    "SignalsConfig",
    "Status",
    "TakenOverError",
    "TrackerError",
    "TrackingConfig",
    "TrainingConfig",
    "WandbConfig",
    "WorldSizeError",
    "generate_run_name",
    "load_config",
]
