"""Whether a checkpoint is what its manifest says, to the last bit."""

from __future__ import annotations

from keisei._io.directories import OpenDirectory


def verify(models: OpenDirectory, name: str) -> list[str]:
    """Return what is wrong with a checkpoint, a line each; nothing where it verifies. It blocks.

    Args:
        models: the models directory.
        name: the checkpoint's name in it.

    Raises:
        CheckpointError: it cannot be read, or is of a newer format.
    """
    raise NotImplementedError
