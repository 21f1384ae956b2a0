"""Removing checkpoints: never the last one that verifies, never one that is being read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from keisei._io.directories import OpenDirectory


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
    """Remove checkpoints, or what of them is superseded; it blocks.

    Args:
        models: the run's models directory.
        names: which.
        newest: one that this process has just committed, and need not be verified.

    Raises:
        CheckpointError: one cannot be removed.
    """
    raise NotImplementedError


def supersede(models: OpenDirectory, number: int, *, run: str | None = None) -> list[str]:
    """Rename the checkpoints that were committed after that number, and return the new names.

    Args:
        models: the run's models directory.
        number: of the checkpoint that the run goes on from.
        run: the session's id; checkpoints of another run are left alone.

    Raises:
        CheckpointError: one cannot be renamed.
    """
    raise NotImplementedError


def clear(models: OpenDirectory) -> list[str]:
    """Remove what dead savers and removers have left, and return its names; it blocks.

    Raises:
        CheckpointError: something cannot be removed.
    """
    raise NotImplementedError
