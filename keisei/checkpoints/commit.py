"""One checkpoint, whole or absent: staged, digested as it is written, synced, renamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.values import Checkpoint
from keisei.journal.records import Position

Packed: TypeAlias = Any
Writer: TypeAlias = Callable[[Path], object]


class Facts(NamedTuple):
    """What a checkpoint's manifest says of it beside its content.

    Attributes:
        run: the session's id, which is the same in all attempts of a run.
        step: the training step; ``None`` for the final model.
        attempt: the attempt that saves it.
        position: how far the journal was when the state was taken.
        metrics: the metrics that it is saved with.
        random: the packed random states.
    """

    run: str
    step: int | None
    attempt: int
    position: Position | None
    metrics: Mapping[str, float]
    random: Packed | None = None


def commit(
    models: OpenDirectory,
    content: Packed | Writer,
    facts: Facts,
    *,
    before_rename: Callable[[], object] = lambda: None,
) -> Checkpoint:
    """Commit a checkpoint, and point `latest` at it; it blocks.

    A step that exists already with the same content is returned as it is; a final model is
    replaced.

    Args:
        models: the run's models directory.
        content: the packed state, or a function that writes files into the directory it is given.
        facts: what the manifest says of it.
        before_rename: called when all is written and synced, and nothing is visible yet.

    Raises:
        CheckpointError: it cannot be written, or the step exists with other content; what stood
            there before is as it was, and nothing else is left over.
    """
    raise NotImplementedError
