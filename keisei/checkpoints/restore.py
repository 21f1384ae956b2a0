"""The newest checkpoint that verifies, or the one that was asked for, read back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.listing import Fault, Stored


class Loaded(NamedTuple):
    """A checkpoint that was read, and verified on the way.

    Attributes:
        stored: which one, with its manifest.
        state: what was saved; ``None`` where a function has written files.
        directory: where those files are; else ``None``.
        random: the random states.
        faults: the newer ones that did not verify.
        aside: what those were renamed to.
        release: releases the files in `directory`, which nothing removes before it.
    """

    stored: Stored
    state: dict[str, Any] | None
    directory: Path | None
    random: dict[str, Any] | None
    faults: list[Fault]
    aside: list[str]
    release: Callable[[], None]


def load(
    models: OpenDirectory,
    which: str | int | os.PathLike[str] = "latest",
    *,
    run: str | None,
    set_aside: bool,
    ranked: Callable[[Sequence[Stored]], Sequence[Stored]] | None = None,
) -> Loaded | None:
    """Return a checkpoint's content, verified as it is read; it blocks.

    Where it does not verify, the next older one is read; with a path only that one.

    Args:
        models: the run's models directory.
        which: `latest`, `best`, a step, or a checkpoint's path.
        run: the session's id; checkpoints of another are passed over, unless named by a path.
        set_aside: whether what does not verify is renamed, so that nobody takes it for good.
        ranked: returns checkpoints, which it gets in the order of their commits, the best first.

    Returns:
        ``None`` where the run has no checkpoint.

    Raises:
        CheckpointError: none of them verifies, there is none of that step or path, it is of a
            newer format, or the disk cannot be read.
    """
    raise NotImplementedError
