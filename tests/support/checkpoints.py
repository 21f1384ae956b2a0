"""Small checkpoints: saved, looked at, and saved by children that die.

Started as `python -m tests.support.checkpoints`, it serves deaths as `tests.support.crashes` does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.content import Facts
from keisei.checkpoints.layout import Kind, checkpoint_name, kind_of
from keisei.checkpoints.listing import found
from keisei.checkpoints.packing import pack
from keisei.checkpoints.reading import Loaded
from keisei.checkpoints.restore import load
from keisei.checkpoints.retention import remove
from keisei.checkpoints.values import Checkpoint
from keisei.checkpoints.verify import verify
from tests.support.crashes import serve, tell
from tests.support.file_faults import FileFaults

RUN = "run-1"
KEPT = 2


def state_of(step: int) -> dict[str, Any]:
    """Return a state that tells of its step: arrays, a key that is no string, and text."""
    weights = np.arange(300, dtype=np.float32) + step
    return {"weights": weights, "layers": {1: (2, step), "b": b"\x00\xff"}, "name": "añejo"}


def is_of(state: dict[Any, Any] | None, step: int) -> bool:
    """Return whether a state is the one of a step."""
    expected = state_of(step)
    if state is None or state.keys() != expected.keys():
        return False
    weights = state["weights"]
    return (
        weights.dtype == np.float32
        and bool((weights == expected["weights"]).all())
        and {**state, "weights": 0} == {**expected, "weights": 0}
    )


def facts_of(step: int | None, /, **metrics: float) -> Facts:
    """Return what a manifest says of a step, with small random states."""
    random = {"random": [1, 2, 3]}
    return Facts(RUN, step, attempt=1, position=None, metrics=metrics, random=random)


def save(models: OpenDirectory, step: int, **metrics: float) -> Checkpoint:
    """Commit a step's checkpoint."""
    return commit(models, pack(state_of(step), copy=True), facts_of(step, **metrics))


def keep(models: OpenDirectory, newest: int, kept: int = KEPT) -> None:
    """Remove all but the newest checkpoints, as the policy would."""
    names = [stored.name for stored in found(models, RUN).checkpoints]
    remove(models, names[:-kept], newest=checkpoint_name(newest))


def restored(models: OpenDirectory, which: str | int = "latest", *, aside: bool = False) -> Loaded:
    """Load a checkpoint that is there, and check that it holds its step's state."""
    loaded = load(models, which, run=RUN, set_aside=aside)
    assert loaded is not None
    step = loaded.stored.manifest.step
    assert step is not None
    assert is_of(loaded.state, step)
    assert loaded.random == {"random": [1, 2, 3]}
    return loaded


def unsound(models: OpenDirectory) -> list[str]:
    """Name the checkpoints that stand under a checkpoint's name and do not verify."""
    kinds = (Kind.CHECKPOINT, Kind.FINAL_MODEL)
    return [name for name in models.names() if kind_of(name) in kinds and verify(models, name)]


def leftovers(models: OpenDirectory) -> list[str]:
    """Name what is hidden in the models directory."""
    return [name for name in models.names() if name.startswith(".")]


def contents(path: Path) -> dict[str, bytes]:
    """Read every file below a directory; a symlink's text stands for it."""
    return {
        str(file.relative_to(path)): os.readlink(file).encode()
        if file.is_symlink()
        else file.read_bytes()
        for file in path.rglob("*")
        if file.is_symlink() or file.is_file()
    }


@dataclass(frozen=True)
class SaveDeath:
    """A child that saves checkpoints, and when it dies.

    Attributes:
        models: the models directory.
        step: the step that it saves first.
        before: it dies just before this call that touches a file (from 1), in its first save.
        after: or it saves step after step, and is killed when it was told of so many.
        later: how many seconds later than that.
    """

    models: str
    step: int
    before: int | None = None
    after: int | None = None
    later: float = 0.0


def child(death: SaveDeath, pipe: int) -> None:
    """Be the one that dies."""
    faults = FileFaults(die_before=death.before)
    if death.after is None:
        faults.install()
    step = death.step
    with OpenDirectory(death.models) as models:
        while True:
            save(models, step)
            tell(pipe, "saved", step)
            keep(models, step)
            step += 1
            if death.after is None:
                break
    tell(pipe, "calls", len(faults.calls))


if __name__ == "__main__":
    with_everything = pack(state_of(0), copy=True)  # imports what each child would import anew
    serve(SaveDeath, child)
