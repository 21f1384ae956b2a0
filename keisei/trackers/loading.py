"""Find a tracker by its name: an entry point of the group `keisei.trackers`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from keisei.errors import KeiseiError, MissingExtraError, TrackerError, describe, quoted
from keisei.trackers.base import Tracker, TrackerFactory

KIND = "tracker"  # the option by which two trackers of a kind have names of their own


def make_tracker(name: str, options: Mapping[str, object]) -> Tracker:
    """Make the tracker that an entry point names, in this process; blocks, for it imports it.

    Args:
        name: the entry point's name, such as ``"wandb"``, or a name of the user's own.
        options: what its factory is called with; `tracker`, if it is there, is the entry point.

    Raises:
        TrackerError: no installed package offers it, or it cannot be made with these options.
        MissingExtraError: it needs a package that is not installed.
        OSError: it cannot be read; it may be tried again.
    """
    factory = find_factory(kind_of(name, options))
    try:
        return factory(**{key: value for key, value in options.items() if key != KIND})
    except (KeiseiError, OSError, MemoryError):
        raise
    except Exception as exc:
        raise TrackerError(f"{name} cannot be made: {describe(exc)}") from exc


def kind_of(name: str, options: Mapping[str, object]) -> str:
    """Return the entry point of a tracker: its name, unless its options say another."""
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


def find_factory(name: str) -> TrackerFactory:
    """Find what makes the tracker that an entry point names; blocks, for it imports it.

    Args:
        name: the entry point's name.

    Raises:
        TrackerError: no installed package offers it, or it cannot be imported.
        OSError: it cannot be read; it may be tried again.
    """
    from importlib import metadata  # 15 ms that a program without trackers of its own saves

    found = metadata.entry_points(group="keisei.trackers")
    for entry_point in found:
        if entry_point.name == name:
            try:
                return cast(TrackerFactory, entry_point.load())
            except (KeiseiError, OSError, MemoryError):
                raise  # the last two may pass
            except Exception as exc:
                raise TrackerError(f"{name} cannot be imported: {describe(exc)}") from exc
    known = ", ".join(sorted({entry_point.name for entry_point in found})) or "none"
    raise TrackerError(f"no tracker is called {quoted(name)}; installed: {known}")
