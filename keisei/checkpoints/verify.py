"""Whether a checkpoint is what its manifest says, to the last bit."""

from __future__ import annotations

import os

from keisei._io.directories import OpenDirectory
from keisei.checkpoints import failing
from keisei.checkpoints.opening import check_file, opened, read_manifest
from keisei.errors import CheckpointError


def verify(models: OpenDirectory, name: str) -> list[str]:
    """Return what is wrong with a checkpoint, a line each; nothing where it verifies. It blocks.

    Args:
        models: the directory that it stands in.
        name: its name there.

    Raises:
        CheckpointError: it cannot be read, or is of a newer format.
        GoneError: it stands there no more.
    """
    try:
        with failing.reading(os.path.join(models.path, name)), opened(models, name) as directory:
            manifest, _ = read_manifest(directory)
            problems = (
                check_file(directory, entry, manifest.algorithm) for entry in manifest.files
            )
            return [problem for problem in problems if problem is not None]
    except CheckpointError as exc:
        if not exc.corrupt:
            raise
        return [str(exc)]
