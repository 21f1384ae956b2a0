"""The trash of a root: runs that were removed, and can be brought back."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime

from keisei._io import files, locks
from keisei.errors import SessionInUseError, quoted
from keisei.run import find
from keisei.run.layout import TRAINING_LOG
from keisei.run.names import check_run_name
from keisei.run.session_file import in_use

TRASH = ".trash"
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,127})~(?P<time>\d{8}T\d{12}Z)")


def remove(path: str, gone: Collection[str] = ()) -> str:
    """Move a run to the trash beside it, in one step; its models elsewhere stay where they are.

    Args:
        path: the run's directory, absolute.
        gone: other hosts that are known to be gone.

    Returns:
        Where it is now.

    Raises:
        SessionInUseError: its owner lives, or may live.
        OSError: it cannot be moved, or it is no run.
    """
    root, name = os.path.split(path)
    with files.OpenDirectory(path) as directory, locks.locked(directory, TRAINING_LOG):
        run = find.look(directory, gone)
        if run is None:
            raise FileNotFoundError(f"{quoted(path, 300)} is no run's directory")
        if run.live_owner is not None:
            raise in_use(name, run.live_owner, path)
        trash = os.path.join(root, TRASH)
        files.make_directory(trash)
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        kept = os.path.join(trash, f"{name}~{moment}")
        os.rename(path, kept)
    _sync(root, trash)
    return kept


def removed(root: str) -> list[str]:
    """Return the names of the runs in the trash, each with the time of its removal.

    Args:
        root: the directory under which runs live, absolute.
    """
    try:
        return sorted(
            name for name in os.listdir(os.path.join(root, TRASH)) if _ENTRY.fullmatch(name)
        )
    except (FileNotFoundError, NotADirectoryError):
        return []


def restore(root: str, wanted: str) -> str:
    """Bring a run back from the trash.

    Args:
        root: the directory under which runs live, absolute.
        wanted: the run's name, which means the one that was removed last; or one of `removed`.

    Returns:
        Where it is again.

    Raises:
        FileNotFoundError: there is none in the trash; the message lists what is.
        SessionInUseError: a run of that name has been started since.
        OSError: it cannot be moved.
    """
    there = removed(root)
    found = [entry for entry in there if wanted in (entry, entry.partition("~")[0])]
    if not found:
        shown = ", ".join(map(quoted, there[-5:])) or "nothing"
        raise FileNotFoundError(
            f"there is no run {quoted(wanted)} in {quoted(os.path.join(root, TRASH), 300)}: "
            f"it holds {shown}"
        )
    entry = max(found)
    path = os.path.join(root, check_run_name(entry.partition("~")[0]))
    if os.path.lexists(path):
        raise SessionInUseError(
            f"{quoted(path, 300)} exists: remove or rename that run first, and restore this one "
            f"by its name in the trash, {quoted(entry)}",
            path=path,
        )
    os.rename(os.path.join(root, TRASH, entry), path)
    _sync(root, os.path.join(root, TRASH))
    return path


def _sync(*directories: str) -> None:
    for path in directories:
        with suppress(OSError):
            files.sync_directory(path)
