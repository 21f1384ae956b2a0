"""What a save returns, and what a restore returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Checkpoint(NamedTuple):
    """A checkpoint that is committed.

    Attributes:
        step: the training step of it; ``None`` for a final model.
        attempt: the attempt that has saved it.
        path: its directory, absolute.
        size: the bytes in it.
        digest: of what the program has saved in it, as ``ALGORITHM:HEX``; equal states have equal
            digests.
        metrics: the metrics that it was saved with, by name.
        created_at: when it was saved, ISO 8601 with offset.
    """

    step: int | None
    attempt: int
    path: str
    size: int
    digest: str
    metrics: dict[str, float]
    created_at: str


class Restored(NamedTuple):
    """A checkpoint that was read back, and verified on the way.

    Attributes:
        step: the training step of it; ``None`` for a final model.
        state: what was saved; ``None`` where a function has written files.
        directory: where the files are that the function has written; else ``None``.
        metrics: the metrics that it was saved with, by name.
        checkpoint: the checkpoint that it was read from.
    """

    step: int | None
    state: dict[str, Any] | None
    directory: Path | None
    metrics: dict[str, float]
    checkpoint: Checkpoint
