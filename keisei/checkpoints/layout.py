"""What stands in a run's models directory, by name.

A checkpoint is `checkpoint_{step}.ckpt`, the final model `final_model`. What is being written or
removed begins with a dot; what was set aside has a word behind the name of the checkpoint.
"""

from __future__ import annotations

import re
from enum import Enum

FINAL_MODEL = "final_model"
LATEST, BEST = "latest", "best"
MANIFEST = "manifest.json"
FILES = "files"
CORRUPT, SUPERSEDED = "corrupt", "superseded"

_CHECKPOINT = re.compile(r"checkpoint_(0|[1-9][0-9]{0,18})\.ckpt", re.ASCII)
_ASIDE = re.compile(rf"(.+)\.({CORRUPT}|{SUPERSEDED})(?:-[1-9][0-9]*)?", re.ASCII)
_PASSING = re.compile(r"\.(.+)\.(tmp|removing)-[0-9a-f]{16}", re.ASCII)


class Kind(Enum):
    """What something in the models directory is, by its name."""

    CHECKPOINT = "checkpoint"
    FINAL_MODEL = "final model"
    STAGED = "staged"
    REMOVING = "removing"
    CORRUPT = "corrupt"
    SUPERSEDED = "superseded"
    OTHER = "other"


def checkpoint_name(step: int | None) -> str:
    """Return the name of a step's checkpoint; ``None`` stands for the final model."""
    return FINAL_MODEL if step is None else f"checkpoint_{step}.ckpt"


def step_of(name: str) -> int | None:
    """Return the step of a checkpoint's name; ``None`` where it is none."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def kind_of(name: str) -> Kind:
    """Return what a name in the models directory stands for."""
    if name == FINAL_MODEL:
        return Kind.FINAL_MODEL
    if step_of(name) is not None:
        return Kind.CHECKPOINT
    if (match := _PASSING.fullmatch(name)) and is_ours(match[1]):
        return Kind.STAGED if match[2] == "tmp" else Kind.REMOVING
    if (match := _ASIDE.fullmatch(name)) and is_ours(match[1]):
        return Kind(match[2])
    return Kind.OTHER


def is_ours(name: str) -> bool:
    """Return whether a name is a checkpoint's, the final model's, or was one's before."""
    return kind_of(name) is not Kind.OTHER


def staged_name(name: str, token: str) -> str:
    """Return where a checkpoint is written before it is renamed.

    Args:
        name: the checkpoint's name.
        token: 16 hexadecimal digits that nobody else has.
    """
    return f".{name}.tmp-{token}"


def removing_name(name: str, token: str) -> str:
    """Return what a checkpoint is called while it is being removed; see `staged_name`."""
    return f".{name}.removing-{token}"
