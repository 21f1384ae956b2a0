"""keisei owns the life of a training run: its name, directory, config, seeds, logs and end.

The names below are imported when they are first used, as pydantic's own are: `import keisei`
costs next to nothing, and brings neither wandb nor numpy nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keisei.config_file import load_config
    from keisei.config_schema import (
        AppConfig,
        EnvConfig,
        JournalConfig,
        LoggingConfig,
        Section,
        SignalsConfig,
        TrainingConfig,
        WandbConfig,
    )
    from keisei.errors import (
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
        SessionEndedError,
        SessionInUseError,
        SignalError,
        TrackerError,
    )
    from keisei.run.identity import generate_run_name
    from keisei.run.state import FinalStatus, SessionState, Status
    from keisei.training.session_manager import AsyncSessionManager, SessionManager

_HOMES = {
    "config_file": ["load_config"],
    "config_schema": [
        "AppConfig",
        "EnvConfig",
        "JournalConfig",
        "LoggingConfig",
        "Section",
        "SignalsConfig",
        "TrainingConfig",
        "WandbConfig",
    ],
    "errors": [
        "ConfigError",
        "ConfigSaveError",
        "DirectorySetupError",
        "ForkedSessionError",
        "InvalidRunNameError",
        "InvalidStatusError",
        "JournalError",
        "KeiseiError",
        "MissingExtraError",
        "NoThreadError",
        "NotReadyError",
        "SessionEndedError",
        "SessionInUseError",
        "SignalError",
        "TrackerError",
    ],
    "run.identity": ["generate_run_name"],
    "run.state": ["FinalStatus", "SessionState", "Status"],
    "training.session_manager": ["AsyncSessionManager", "SessionManager"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"

__all__ = [
    "AppConfig",
    "AsyncSessionManager",
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
    "KeiseiError",
    "LoggingConfig",
    "MissingExtraError",
    "NoThreadError",
    "NotReadyError",
    "Section",
    "SessionEndedError",
    "SessionInUseError",
    "SessionManager",
    "SessionState",
    "SignalError",
    "SignalsConfig",
    "Status",
    "TrackerError",
    "TrainingConfig",
    "WandbConfig",
    "generate_run_name",
    "load_config",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
