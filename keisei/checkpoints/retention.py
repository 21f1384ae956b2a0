"""Removing checkpoints: never the last one that verifies, never one that is being read."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import NamedTuple

from keisei._io import locks
from keisei._io.directories import OpenDirectory
from keisei.checkpoints import failing
from keisei.checkpoints.layout import BEST, LATEST, SUPERSEDED, Kind, kind_of, removing_name
from keisei.checkpoints.listing import found
from keisei.checkpoints.opening import GoneError
from keisei.checkpoints.pointers import point, pointed
from keisei.checkpoints.verify import verify
from keisei.errors import CheckpointError, quoted

_REMOVABLE = (Kind.CHECKPOINT, Kind.SUPERSEDED)


class Removed(NamedTuple):
    """What a removal has done, by name.

    Attributes:
        removed: what is gone.
        in_use: what is being read, and stays for now.
        needed: what stays because nothing else verifies.
    """

    removed: list[str]
    in_use: list[str]
    needed: list[str]


def remove(models: OpenDirectory, names: Iterable[str], *, newest: str | None = None) -> Removed:
    """Remove checkpoints, and superseded ones; it blocks.

    One that stays has to verify: the newest, or one that is read for it.

    Args:
        models: the run's models directory.
        names: which; what is not there is left out.
        newest: one that this process has just committed, and need not be read for it.

    Raises:
        CheckpointError: one cannot be removed, or a name is no checkpoint's.
    """
    asked = list(names)
    for name in asked:
        if kind_of(name) not in _REMOVABLE:
            raise CheckpointError(f"{quoted(name)} is no checkpoint's name: it is not removed")
    there = [stored.name for stored in found(models).checkpoints]
    needed = _needed(models, there, asked, newest)
    going = [name for name in asked if name not in needed]
    passing: dict[str, str | None] = {}
    with failing.removing(models.path), ExitStack() as held:
        staying = [name for name in there if name not in going]
        _point_elsewhere(models, going, staying[-1] if staying else None)
        for name in going:
            with suppress(FileNotFoundError):
                passing[name] = _put_out_of_sight(models, name, held)
        removed = {name: out for name, out in passing.items() if out is not None}
        try:
            # Else a loss of power could leave a name, and only half of what it stood for.
            models.sync()
        except OSError:
            for name, out in removed.items():
                models.replace(out, name)
            raise
        for out in removed.values():
            models.remove_tree(out)
    return Removed(list(removed), [name for name in passing if name not in removed], needed)


def supersede(models: OpenDirectory, number: int, *, run: str | None = None) -> list[str]:
    """Rename the checkpoints that were committed after that number, and return the new names.

    The newest is the first: where this is interrupted, what stays is the past of one future.

    Args:
        models: the run's models directory.
        number: of the checkpoint that the run goes on from.
        run: the session's id; checkpoints of another run are left alone.

    Raises:
        CheckpointError: one cannot be renamed.
    """
    checkpoints = found(models, run).checkpoints
    later = [stored.name for stored in checkpoints if stored.manifest.number > number]
    with failing.removing(models.path):
        if later:
            before = [stored.name for stored in checkpoints if stored.name not in later]
            _point_elsewhere(models, later, before[-1] if before else None)
        return [models.set_aside(name, SUPERSEDED) for name in reversed(later)]


def _needed(
    models: OpenDirectory, there: list[str], asked: list[str], newest: str | None
) -> list[str]:
    """Return which of those asked for has to stay, because none of the others verifies."""
    going = [name for name in reversed(there) if name in asked]
    staying = [name for name in reversed(there) if name not in asked]
    if not going or newest in staying:
        return []
    for name in staying + going:
        with suppress(GoneError):
            if not verify(models, name):
                return [] if name in staying else [name]
    return going


def _put_out_of_sight(models: OpenDirectory, name: str, held: ExitStack) -> str | None:
    """Rename a checkpoint that nobody reads, and hold its lock; ``None`` where one reads it."""
    with models.inside(name) as directory:
        try:
            locks.lock_directory(directory, 0.0)
        except locks.LockedError:
            return None
        held.enter_context(directory.detached())
    passing = removing_name(name, secrets.token_hex(8))
    try:
        models.replace(name, passing)
    except PermissionError:
        if directory.fd is None and os.name == "nt":  # as Windows says that it is being read
            return None
        raise
    return passing


def _point_elsewhere(models: OpenDirectory, names: list[str], newest: str | None) -> None:
    """Point neither `latest` nor `best` at what is about to go."""
    for pointer, instead in ((LATEST, newest), (BEST, None)):
        if pointed(models, pointer) in names:
            point(models, pointer, instead)
