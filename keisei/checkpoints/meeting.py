"""One checkpoint of several ranks, which meet in one staging directory and nowhere else.

1. Each rank opens `.checkpoint_{step}.ckpt.tmp-{token}`, whose token all of them know without
   being told, and shares its lock. Rank 0 writes its state there.
2. Rank 3 writes its shard to `rank3.writing`, synced, its own manifest last. It is `rank3.ready`
   by one rename.
3. Rank 0 takes each shard that is ready by another: it is `rank3`. Until then rank 3 can withdraw
   it, by the opposite rename: only one of the two finds it there.
4. Once rank 0 has taken all of them, it commits as if it were alone: the manifest, which names
   every file, and one rename of the whole. The others see by it that it is done.

A rank that fails leaves `rank3.failed`; rank 0 leaves `outcome.json`, for those who are late. No
rank waits for longer than its timeout, and no step needs a lock or a barrier. What is left over is
swept by a later save.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.content import Facts
from keisei.checkpoints.layout import checkpoint_name, staged_name
from keisei.checkpoints.opening import (
    GoneError,
    opened,
    within,
)
from keisei.checkpoints.shards import staging_token
from keisei.errors import CheckpointError, quoted

OUTCOME = "outcome.json"

_TIMEOUT = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
_TRIES = 100


def _go_on() -> None:
    pass


class Ranks(NamedTuple):
    """Which rank saves, of how many.

    Attributes:
        rank: its rank; rank 0 commits.
        world_size: how many ranks there are.
        saves: which save of the same step it is in the attempt, from 1: ranks that count
            differently do not meet.
        timeout: how long it waits for the others once its own shard is written, in seconds.
        check: called while it waits: what it raises ends the wait, and the save.
    """

    rank: int
    world_size: int
    saves: int = 1
    timeout: float = _TIMEOUT
    check: Callable[[], object] = _go_on


@contextmanager
def met(models: OpenDirectory, facts: Facts, ranks: Ranks) -> Iterator[tuple[OpenDirectory, str]]:
    """Open the directory that all ranks of a save know; its lock says that it is in use."""
    token = staging_token(facts.run, facts.attempt, facts.step, ranks.world_size, ranks.saves)
    temporary = staged_name(checkpoint_name(facts.step), token)
    with ExitStack() as stack:
        for _ in range(_TRIES):
            models.make(temporary, sync=False)
            try:
                directory = stack.enter_context(opened(models, temporary))
            except GoneError:  # another process has taken it for a dead saver's
                continue
            yield directory, temporary
            return
        raise CheckpointError(f"{quoted(temporary)} is removed as often as it is made")


def outcome_of(directory: OpenDirectory) -> str | None:
    """Return the name of the checkpoint that rank 0 has found to be the same.

    Returns:
        ``None`` where nothing is decided yet.

    Raises:
        CheckpointError: rank 0 has given up.
    """
    said = read_note(directory, OUTCOME)
    if said is None:
        return None
    if "standing" not in said:
        raise CheckpointError(f"rank 0 has given it up: {said.get('error')}")
    return said["standing"]


def read_note(directory: OpenDirectory, name: str) -> dict[str, str] | None:
    """Return what another rank has written for this one; ``None`` where it has not."""
    text = directory.read(name)
    if text is None:
        return None
    try:
        return {str(key): str(value) for key, value in json.loads(text).items()}
    except (ValueError, AttributeError):
        return {"error": "what it has written is no JSON"}


def write_note(directory: OpenDirectory, name: str, said: dict[str, str]) -> None:
    """Write something for another rank; see `read_note`."""
    files.write_atomic(directory, name, json.dumps(said).encode(), sync=False)


def text_of(directory: OpenDirectory, path: str) -> bytes:
    """Return a file of a checkpoint; nothing where it cannot be read."""
    with suppress(OSError), within(directory, path) as (inner, name):
        return b"".join(files.parts(inner, name))
    return b""


def late(models: OpenDirectory, ranks: Ranks, missing: list[int]) -> TimeoutError:
    """Return the error of ranks that have not come in time."""
    shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
    what = f"rank {shown} has" if len(missing) == 1 else f"ranks {shown} have"
    return TimeoutError(
        f"{what} not saved the same step within {ranks.timeout:g} s: every rank has to save, and "
        f"{quoted(models.path, 300)} has to be the same directory for all of them"
    )


def pauses() -> Iterator[float]:
    """Yield how long to wait before looking again, in seconds."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 1.5, _LONGEST_PAUSE)
