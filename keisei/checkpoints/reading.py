"""One checkpoint, read back and verified on the way: the whole of it, or a rank's shard."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from keisei._io.directories import OpenDirectory
from keisei.checkpoints import failing
from keisei.checkpoints.digests import PLAIN, digest_of
from keisei.checkpoints.layout import FILES, MANIFEST
from keisei.checkpoints.listing import Fault, Stored, stored_as
from keisei.checkpoints.manifest import Manifest, encode
from keisei.checkpoints.opening import GoneError, check_file, opened, read_manifest
from keisei.checkpoints.packing import RANDOM, STATE, read_packed
from keisei.checkpoints.shards import Reader, rank_of, shard_name, shard_to_read
from keisei.errors import CheckpointError, quoted
from keisei.journal.records import Position

ALONE = Reader()


def _nothing() -> None:
    pass


class Loaded(NamedTuple):
    """A checkpoint that was read, and verified on the way.

    Attributes:
        stored: which one, with its manifest.
        state: what was saved; ``None`` where a function has written files.
        directory: where those files are; else ``None``.
        random: the random states; ``None`` where they are another rank's.
        position: where the journal of this rank was; ``None`` where that is not known.
        faults: those that were to be read before it, and did not verify.
        aside: what those are called now, as far as they were set aside.
        release: releases the files in `directory`, which nothing removes before it.
    """

    stored: Stored
    state: dict[Any, Any] | None
    directory: Path | None
    random: dict[Any, Any] | None
    position: Position | None
    faults: Sequence[Fault] = ()
    aside: Sequence[str] = ()
    release: Callable[[], None] = _nothing


def read_checkpoint(models: OpenDirectory, stored: Stored, reader: Reader = ALONE) -> Loaded:
    """Read and verify one checkpoint; of several ranks each reads its shard, rank 0 verifies all.

    Raises:
        CheckpointError: it does not verify (`corrupt` is set), or cannot be read.
        WorldSizeError: it has no shard for this rank.
        GoneError: it was removed, or another one stands there.
    """
    manifest, path = stored.manifest, stored.checkpoint.path
    with ExitStack() as held, failing.reading(path):
        directory = held.enter_context(opened(models, stored.name))
        if read_manifest(directory)[0] != manifest:
            raise GoneError(stored.name)
        shard = shard_to_read(manifest, reader)
        decides = reader.rank == 0 and reader.shard is None
        unread = {rank_of(entry.name) for entry in manifest.files} if decides else ()
        _verify(directory, path, manifest, {*unread, shard} - {0})
        own, whose = directory, manifest
        if shard > 0:
            if manifest.file(f"{shard_name(shard)}/{MANIFEST}") is None:
                raise failing.damaged(path, f"its manifest has no shard of rank {shard}")
            own = held.enter_context(directory.inside(shard_name(shard)))
            whose, _ = read_manifest(own)
        random = position = None
        if shard == reader.rank:  # else they are another's
            position = whose.position
            if whose.file(f"{RANDOM}.json") is not None:
                random = read_packed(own, RANDOM, whose)
        if whose.kind == "nothing" and reader.shard is None:
            own, whose = directory, manifest
        state = read_packed(own, STATE, whose) if whose.kind == "state" else None
        loaded = Loaded(stored, state, None, random, position)
        if whose.kind != "files":
            return loaded
        _verify(own, path, whose, {0})
        written = Path(own.path, FILES)
        return loaded._replace(directory=written, release=held.pop_all().close)


def read_path(named: str, reader: Reader = ALONE) -> Loaded:
    """Read and verify the checkpoint at a path; see `read_checkpoint`."""
    try:
        path = os.path.realpath(named)
    except ValueError as exc:
        raise CheckpointError(f"{quoted(named, 300)} is no path: {exc}", path=named) from None
    above, name = os.path.split(path)
    with failing.reading(path), OpenDirectory(above, follow=True) as directory:
        return read_named(directory, name, reader)


def read_named(models: OpenDirectory, name: str, reader: Reader = ALONE) -> Loaded:
    """Read and verify the checkpoint of a name; see `read_checkpoint`."""
    path = os.path.join(models.path, name)
    try:
        with failing.reading(path), opened(models, name) as directory:
            stored = stored_as(models.path, name, *read_manifest(directory))
        return read_checkpoint(models, stored, reader)
    except GoneError:
        raise CheckpointError(f"there is no checkpoint at {quoted(path, 300)}", path=path) from None


def identity_of(manifest: Manifest) -> str:
    """Return what tells a checkpoint from every other one, the same step's too."""
    return digest_of(PLAIN, encode(manifest))


def _verify(directory: OpenDirectory, path: str, manifest: Manifest, ranks: set[int]) -> None:
    """Verify the files that are of some ranks, every byte of them; rank 0's are its own alone.

    Raises:
        CheckpointError: one does not verify.
    """
    for entry in manifest.files:
        if rank_of(entry.name) not in ranks:
            continue
        if (problem := check_file(directory, entry, manifest.algorithm)) is not None:
            raise failing.damaged(path, problem)
