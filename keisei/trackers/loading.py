"""Find a tracker by its name: one of keisei's own, or an entry point of `keisei.trackers`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from keisei._io.plugins import Kind, load
from keisei.errors import KeiseiError, MissingExtraError, TrackerError, describe
from keisei.trackers.base import Tracker, TrackerFactory

KIND = "tracker"  # the option by which two trackers of a kind have names of their own
TRACKERS = Kind(
    "keisei.trackers",
    "tracker",
    {
        "mlflow": "keisei.trackers.mlflow.tracker:MlflowTracker",
        "registry": "keisei.store.tracker:RegistryTracker",
        "tensorboard": "keisei.trackers.tensorboard:TensorBoardTracker",
        "trackio": "keisei.trackers.trackio:TrackioTracker",
        "wandb": "keisei.trackers.wandb.tracker:WandbTracker",
    },
    TrackerError,
)


def make_tracker(name: str, options: Mapping[str, object]) -> Tracker:
    """Make the tracker of a name, in this process; blocks, for it imports it.

    Args:
        name: a tracker's name, such as ``"wandb"``, or a name of the user's own.
        options: what its factory is called with; `tracker`, if it is there, is the tracker's name.

    Raises:
        TrackerError: no installed package offers it, or it cannot be made with these options.
        MissingExtraError: it needs a package that is not installed.
        OSError: it cannot be read; it may be tried again.
    """
    factory = cast(TrackerFactory, load(TRACKERS, kind_of(name, options)))
    try:
        return factory(**{key: value for key, value in options.items() if key != KIND})
    except (KeiseiError, OSError, MemoryError):
        raise
    except Exception as exc:
        raise TrackerError(f"{name} cannot be made: {describe(exc)}") from exc


def kind_of(name: str, options: Mapping[str, object]) -> str:
    """Return which tracker a name means: the one of that name, unless its options say another."""
    return str(options.get(KIND, name))


def need_package(package: str, extra: str) -> None:
    """Import a package; what is wrong inside it is raised as it is, and may be tried again.

    Args:
        package: its name.
        extra: keisei's extra that installs it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as exc:
        if exc.name != package:
            raise
        raise MissingExtraError(
            f"the tracker needs {package}: install it with `pip install 'keisei[{extra}]'`"
        ) from exc


def need_temporary_directory(what_for: str) -> None:
    """Check that there is a directory for temporary files; blocks.

    Args:
        what_for: what the tracker needs it for.

    Raises:
        OSError: none can be written; it may be tried again.
    """
    import tempfile  # or the program would import it, too

    try:
        tempfile.gettempdir()
    except FileNotFoundError as exc:
        problem = f"no temporary directory can be written, which is needed for {what_for}: "
        raise OSError(f"{problem}free TMPDIR or /tmp, or set TMPDIR to one that can") from exc
