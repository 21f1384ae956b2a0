"""What checkpoints a models directory holds, by their manifests."""

from __future__ import annotations

from typing import Any, NamedTuple

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.values import Checkpoint


class Stored(NamedTuple):
    """A checkpoint whose manifest is good; its files may still not be.

    Attributes:
        name: its directory's name.
        manifest: what it says of itself.
        checkpoint: the same as the program sees it.
    """

    name: str
    manifest: Any
    checkpoint: Checkpoint


class Fault(NamedTuple):
    """A checkpoint that cannot be used, and why.

    Attributes:
        name: its directory's name.
        problem: what is wrong, in one line.
    """

    name: str
    problem: str


class Found(NamedTuple):
    """What stands in a models directory.

    Attributes:
        checkpoints: the run's checkpoints in the order of their commits.
        final_model: the final model.
        unusable: those whose manifest is bad, newer, or of another run.
        staged: what savers are writing, or have left.
        removing: what is being removed, or was when its process died.
        corrupt: what did not verify, and was set aside.
        superseded: what a resumed run has left behind.
    """

    checkpoints: list[Stored]
    final_model: Stored | None
    unusable: list[Fault]
    staged: list[str]
    removing: list[str]
    corrupt: list[str]
    superseded: list[str]


def found(models: OpenDirectory, run: str | None = None) -> Found:
    """Return what stands in a models directory; it blocks, and changes nothing.

    Args:
        models: the models directory.
        run: the session's id; checkpoints of another are unusable. ``None`` takes all.

    Raises:
        CheckpointError: it cannot be read.
    """
    raise NotImplementedError
