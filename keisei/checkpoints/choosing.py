"""Which checkpoint the ranks of a run go on from: rank 0 chooses, and the others read the same.

Rank 0 verifies all shards of it, and writes what it has chosen beside the checkpoints, in
`.chosen-{attempt}-{number}.json`.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from typing import NamedTuple

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei.checkpoints import failing
from keisei.checkpoints.meeting import Ranks, pauses
from keisei.checkpoints.reading import Loaded, identity_of, read_named, read_path
from keisei.checkpoints.shards import Reader
from keisei.errors import CheckpointError, WorldSizeError, describe, quoted

_CHOSEN = re.compile(r"\.chosen-([0-9]+)-[0-9]+\.json", re.ASCII)


class Choice(NamedTuple):
    """What rank 0 has chosen.

    Attributes:
        name: the checkpoint's name; ``None`` where the run has none.
        identity: of the checkpoint; see `identity_of`.
        resumes: whether the run goes on from it, or from the beginning.
        error: why there is none, where rank 0 has failed.
        saved: how many ranks have saved the checkpoint, where that is why.
    """

    name: str | None
    identity: str | None
    resumes: bool
    error: str | None = None
    saved: int | None = None


def failed(exc: BaseException) -> Choice:
    """Return what rank 0 tells the others where it has failed."""
    if isinstance(exc, WorldSizeError):
        return Choice(None, None, False, str(exc), exc.saved)
    return Choice(None, None, False, describe(exc))


def choice_of(loaded: Loaded | None, *, resumes: bool) -> Choice:
    """Return what rank 0 tells the others of what it has read."""
    if loaded is None:
        return Choice(None, None, resumes)
    return Choice(loaded.stored.name, identity_of(loaded.stored.manifest), resumes)


def publish(models: OpenDirectory, attempt: int, number: int, choice: Choice) -> None:
    """Write what rank 0 has chosen, for the other ranks; it blocks.

    Args:
        models: the run's models directory.
        attempt: the attempt that restores.
        number: which restore of the attempt it is, from 1.
        choice: what is chosen.

    Raises:
        CheckpointError: it cannot be written.
    """
    name = _name_of(attempt, number)
    with failing.saving(os.path.join(models.path, name)):
        for old in models.names():
            if (match := _CHOSEN.fullmatch(old)) and int(match[1]) < attempt:
                models.unlink(old)
        files.write_atomic(models, name, json.dumps(choice._asdict()).encode())


def awaited(models: OpenDirectory, attempt: int, number: int, ranks: Ranks) -> Choice:
    """Wait for what rank 0 chooses, and return it; it blocks.

    Args:
        models: the run's models directory.
        attempt: the attempt that restores.
        number: which restore of the attempt it is, from 1.
        ranks: which rank waits, and how long.

    Raises:
        CheckpointError: rank 0 has failed, or has not come in time.
        WorldSizeError: rank 0 has failed with it.
    """
    name = _name_of(attempt, number)
    path = os.path.join(models.path, name)
    give_up, pause = time.monotonic() + ranks.timeout, pauses()
    while True:
        # Opened anew: a network's file system looks no more than once at one that stays open.
        with failing.reading(models.path), OpenDirectory(models.path) as directory:
            text = directory.read(name)
        if text is not None:
            break
        if time.monotonic() > give_up:
            raise CheckpointError(
                f"rank 0 has not restored a checkpoint within {ranks.timeout:g} s: every rank has "
                f"to call restore_checkpoint(), and {quoted(models.path, 300)} has to be the same "
                "directory for all of them",
                path=path,
            )
        ranks.check()
        time.sleep(next(pause))
    choice = None
    with suppress(ValueError, TypeError):
        choice = Choice(**json.loads(text))
    if choice is None:
        raise CheckpointError(f"{quoted(path, 300)} does not say what rank 0 has chosen", path=path)
    if choice.error is not None and choice.saved is not None:
        size = ranks.world_size
        raise WorldSizeError(choice.error, path=path, saved=choice.saved, world_size=size)
    if choice.error is not None:
        raise CheckpointError(f"rank 0 cannot restore a checkpoint: {choice.error}", path=path)
    return choice


def read_chosen(
    models: OpenDirectory, which: str | int | os.PathLike[str], choice: Choice, reader: Reader
) -> Loaded | None:
    """Read and verify a rank's shard of what rank 0 has chosen; it blocks.

    Args:
        models: the run's models directory.
        which: what was asked for: a path is read where it leads here.
        choice: what rank 0 has chosen.
        reader: which rank reads.

    Returns:
        ``None`` where the run has no checkpoint.

    Raises:
        CheckpointError: it is another one here, it does not verify, or it cannot be read.
        WorldSizeError: it has no shard for this rank.
    """
    if choice.name is None:
        return None
    is_path = not isinstance(which, int) and which not in ("latest", "best")
    if is_path:
        loaded = read_path(os.fspath(which), reader)  # type: ignore[arg-type] # it is no step
    else:
        loaded = read_named(models, choice.name, reader)
    if identity_of(loaded.stored.manifest) != choice.identity:
        path = loaded.stored.checkpoint.path
        loaded.release()
        raise CheckpointError(
            f"{quoted(path, 300)} is not what rank 0 has restored under this name: all ranks have "
            "to see the same directory",
            path=path,
        )
    return loaded


def _name_of(attempt: int, number: int) -> str:
    return f".chosen-{attempt}-{number}.json"
