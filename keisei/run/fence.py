"""Keeps an earlier owner that may live from finishing what it has begun to write.

Such an owner looks at the session file after it has opened a file to write, or has written a
temporary one, and before it writes or renames it. So once the session file is the next owner's, all
that it can still finish was opened before, and that is replaced here: journals and logs by copies
of themselves, and temporary files and checkpoints that are not committed by nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Collection
from contextlib import ExitStack, suppress

from keisei._io import locks
from keisei._io.directories import OpenDirectory
from keisei.journal.format import part_of
from keisei.run.layout import EVALUATION_LOG, SUPERSEDED_EVALUATIONS, TRAINING_LOG

_OTHERS = ".tracker."  # a tracker's cursor, whose lock admits one deliverer at a time


def fence(
    directory: OpenDirectory, model_dir: str, attempts: Collection[int], held: ExitStack
) -> None:
    """Replace what the owners of earlier attempts may have open; blocks.

    Args:
        directory: the run's directory, whose session file is the next owner's.
        model_dir: the run's models directory.
        attempts: the earlier attempts.
        held: takes the lock of the new training log, which is the lock of the claim.

    Raises:
        OSError: a file cannot be copied.
    """
    if directory.fd is None:  # Windows replaces no file that is open
        return
    for name in directory.names():
        if name == TRAINING_LOG:
            held.enter_context(locks.replaced(directory, name))
        elif name in (EVALUATION_LOG, SUPERSEDED_EVALUATIONS) or _is_journal(name, attempts):
            locks.replaced(directory, name).release()
        elif name.startswith(".") and name.endswith(".tmp") and not name.startswith(_OTHERS):
            directory.unlink(name)
    directory.sync()
    with OpenDirectory(model_dir) as models:
        for name in models.names():
            if name.startswith(".") and ".tmp" in name:
                _drop(models, name)


def _is_journal(name: str, attempts: Collection[int]) -> bool:
    known = part_of(name)
    return known is not None and known[0] in attempts


def _drop(models: OpenDirectory, name: str) -> None:
    """Remove what is not committed; what a stopped saver has locked is at least out of its way."""
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(models.stat(name).st_mode):
            models.unlink(name)
            return
        aside = name.replace(".tmp-", ".removing-")
        models.replace(name, aside)
        with suppress(OSError):
            models.remove_tree(aside)
