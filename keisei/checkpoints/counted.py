"""How many checkpoints a models directory holds, without a look into any of them."""

from __future__ import annotations

from contextlib import suppress

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.layout import BEST, LATEST, step_of
from keisei.checkpoints.pointers import pointed


def counted(path: str) -> dict[str, object]:
    """Return what a models directory's names say of its checkpoints.

    The final model is none of them, nor is what was set aside or is being written.

    Args:
        path: the models directory.

    Returns:
        `count`; `latest`, the step of the latest; `best`, the step of the best one, as
        `checkpoints.keep_best` has it. A step is ``None`` where there is none. Without a directory
        that can be read, nothing.
    """
    try:
        with OpenDirectory(path) as models:
            names = set(models.names())
            steps = {name: step for name in names if (step := step_of(name)) is not None}
            latest, best = (
                _pointed(models, pointer, steps) if pointer in names else None
                for pointer in (LATEST, BEST)
            )
    except OSError:
        return {}
    if latest is None:  # its link was not written, or leads to what has gone since
        latest = max(steps.values(), default=None)
    return {"count": len(steps), "latest": latest, "best": best}


def _pointed(models: OpenDirectory, pointer: str, steps: dict[str, int]) -> int | None:
    with suppress(OSError):
        return steps.get(pointed(models, pointer) or "")
    return None
