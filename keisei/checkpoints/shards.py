"""A checkpoint of several ranks: which files are whose, and which shard a rank reads.

Rank 0's state lies in the checkpoint itself, as if it were alone. That of rank 3 lies in `rank3/`,
with a manifest of its own, and each of its files is one of the checkpoint's: whoever verifies,
copies or removes a checkpoint needs to know nothing of ranks. All of this is plain functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from keisei.checkpoints.digests import PLAIN, digest_of
from keisei.checkpoints.layout import MANIFEST
from keisei.checkpoints.manifest import ArrayEntry, FileEntry, Manifest, content_digest
from keisei.errors import WorldSizeError

WRITING, READY, FAILED = "writing", "ready", "failed"  # a shard's marks, before rank 0 takes it

_OF_A_RANK = re.compile(r"rank([1-9][0-9]{0,8})", re.ASCII)


class Reader(NamedTuple):
    """Which rank reads, and which shard.

    Attributes:
        rank: its rank.
        world_size: how many ranks its run has.
        shard: the rank whose shard is asked for; ``None`` for its own.
    """

    rank: int = 0
    world_size: int = 1
    shard: int | None = None


def shard_name(rank: int, mark: str | None = None) -> str:
    """Return what a rank's shard is called in a checkpoint, or with a mark before it is in one."""
    return f"rank{rank}" if mark is None else f"rank{rank}.{mark}"


def staging_token(run: str, attempt: int, step: int | None, world_size: int, count: int) -> str:
    """Return 16 hexadecimal digits that all ranks of a save have, and no other save has.

    Args:
        run: the session's id.
        attempt: the attempt that saves.
        step: the training step; ``None`` for the final model.
        world_size: how many ranks there are.
        count: which save of this step it is in the attempt, from 1.
    """
    text = f"{run} {attempt} {step} {world_size} {count}"
    return digest_of(PLAIN, text.encode()).partition(":")[2][:16]


def files_of(shard: Manifest, text: bytes, algorithm: str) -> list[FileEntry]:
    """Return a shard's files as the checkpoint's own.

    Args:
        shard: the shard's manifest.
        text: the whole text of it.
        algorithm: of the checkpoint's digests, which is the shard's, too.
    """
    above = shard_name(shard.rank)
    own = FileEntry(MANIFEST, len(text), digest_of(algorithm, text).partition(":")[2])
    return [entry._replace(name=f"{above}/{entry.name}") for entry in [*shard.files, own]]


def joined_digest(
    files: list[FileEntry], arrays: list[ArrayEntry], shards: Sequence[Manifest], algorithm: str
) -> str:
    """Return one digest of what all ranks have saved.

    Args:
        files: of rank 0's state.
        arrays: in them.
        shards: the manifests of the others.
        algorithm: of the digest.
    """
    others = [
        FileEntry(shard_name(shard.rank), 0, shard.digest.partition(":")[2]) for shard in shards
    ]
    return content_digest([*files, *others], arrays, algorithm)


def rank_of(file_name: str) -> int:
    """Return whose file of a checkpoint one is, by its name."""
    match = _OF_A_RANK.fullmatch(file_name.partition("/")[0])
    return int(match[1]) if match and "/" in file_name else 0


def is_replicated(manifest: Manifest) -> bool:
    """Return whether rank 0's state is all that a checkpoint has: any number of ranks can take it.

    Random states are each rank's own, and do not count.
    """
    beside = (MANIFEST, "random.json")
    return all(
        entry.name.partition("/")[2] in beside for entry in manifest.files if rank_of(entry.name)
    )


def shard_to_read(manifest: Manifest, reader: Reader) -> int:
    """Return whose shard a rank reads.

    Args:
        manifest: the checkpoint's.
        reader: the rank.

    Raises:
        WorldSizeError: the checkpoint was saved by another number of ranks, which all had a state
            of their own, or by fewer than the one that is asked for.
    """
    saved, now = manifest.world_size, reader.world_size
    if reader.shard is not None:
        if 0 <= reader.shard < saved:
            return reader.shard
        raise WorldSizeError(
            f"{_named(manifest)} has the shards of {_ranks(saved)}, so that there is no shard "
            f"{reader.shard}: ask for one from 0 to {saved - 1}",
            saved=saved,
            world_size=now,
        )
    if saved == now:
        return reader.rank
    if is_replicated(manifest):
        return 0
    raise WorldSizeError(
        f"{_named(manifest)} was saved by {_ranks(saved)}, each with a state of its own, and this "
        f"run has {_ranks(now)}: start it with {saved}, or read the shards with "
        f"restore_checkpoint(..., shard=r), r from 0 to {saved - 1}, and put them together anew",
        saved=saved,
        world_size=now,
    )


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count:,} ranks"


def _named(manifest: Manifest) -> str:
    what = "final model" if manifest.step is None else f"checkpoint of step {manifest.step}"
    return f"the {what}"
