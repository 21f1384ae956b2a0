"""The SDK's settings files, which its own commands write (`wandb offline`, `wandb disabled`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from keisei.config.schema import WandbMode
from keisei.trackers.wandb.mode import mode_in

_MOST = 1_000_000  # bytes of a file


def mode_in_files(environ: Mapping[str, str]) -> WandbMode | None:
    """Return the mode in the settings files; blocks.

    The files of ``WANDB_DIR`` and of the working directory come before the user's.

    Args:
        environ: the environment, which may say where they are.
    """
    roots = [os.path.expanduser(environ["WANDB_DIR"])] if environ.get("WANDB_DIR") else []
    with suppress(OSError):  # the working directory has been removed
        roots.append(os.getcwd())
    paths = []
    for root in roots:
        above = os.path.join(root, ".wandb")
        above = above if os.path.exists(above) else os.path.join(root, "wandb")
        paths.append(os.path.join(above, "settings"))
    users = environ.get("WANDB_CONFIG_DIR") or os.path.join("~", ".config", "wandb")
    paths.append(os.path.join(os.path.expanduser(users), "settings"))
    for path in paths:
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            if mode := mode_in(file.read(_MOST)):
                return mode
    return None
