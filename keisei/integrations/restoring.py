"""How an adapter gives a framework the files of a checkpoint, to go on from."""

from __future__ import annotations

from typing import ClassVar

from keisei.integrations.attached import Attached


class Restores:
    """What restores a checkpoint of the run, in each adapter that saves."""

    _run: Attached
    _restored_file: ClassVar[str | None] = None  # in a checkpoint; its directory where it is None

    def restore(self, which: str | int = "latest") -> str | None:
        """Return the path of a checkpoint of the run, verified, for the framework to go on from.

        It is what the framework loads: the file `lightning.ckpt` for Lightning, `model.zip` for
        stable-baselines3, and for the others the checkpoint's directory. Each rank calls it.

        Args:
            which: ``"latest"``, ``"best"`` or a step.

        Returns:
            ``None`` where the run has none, and begins.

        Raises:
            CheckpointError: none verifies.
        """
        directory = self._run.restore(which)
        if directory is None:
            return None
        return str(directory if self._restored_file is None else directory / self._restored_file)

    @property
    def restored_step(self) -> int:
        """The step of the checkpoint that was restored last; 0 where none was."""
        return self._run.restored_step
