"""What one process writes of a checkpoint: its state, its random states, and a manifest of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei._version import __version__
from keisei.checkpoints.layout import FILES, MANIFEST
from keisei.checkpoints.manifest import ArrayEntry, FileEntry, Manifest, encode
from keisei.checkpoints.packing import RANDOM, STATE, Packed, pack, write_packed
from keisei.checkpoints.shards import files_of, joined_digest
from keisei.checkpoints.staging import take_files
from keisei.journal.records import Position

Writer: TypeAlias = Callable[[Path], object]
Content: TypeAlias = Packed | Writer | None


class Facts(NamedTuple):
    """What a checkpoint's manifest says of it beside its content.

    Attributes:
        run: the session's id, which is the same in all attempts of a run.
        step: the training step; ``None`` for the final model.
        attempt: the attempt that saves it.
        position: how far the journal was when the state was taken.
        metrics: the metrics that it is saved with.
        random: the random states, which nobody changes any more.
    """

    run: str
    step: int | None
    attempt: int
    position: Position | None
    metrics: Mapping[str, float]
    random: Mapping[str, object] | None = None


def write_content(
    directory: OpenDirectory,
    content: Content,
    facts: Facts,
    algorithm: str,
    *,
    number: int = 0,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[str], Sequence[tuple[Manifest, bytes]]] | None = None,
) -> tuple[Manifest, bytes]:
    """Write all that a process saves into a directory, the manifest last, all of it synced.

    Args:
        directory: the checkpoint, or a rank's shard of one.
        content: the packed state, a function that writes files, or ``None`` for nothing.
        facts: what the manifest says of it.
        algorithm: of the digests.
        number: which commit of the run's it is.
        rank: whose content it is.
        world_size: how many ranks save.
        gather: called with the algorithm when all but the manifest is written; returns the
            manifests, and their texts, of the other ranks' shards, which stand there then.

    Returns:
        The manifest, and its text.
    """
    entries: list[FileEntry] = []
    arrays: list[ArrayEntry] = []
    if isinstance(content, Packed):
        entries, arrays = write_packed(directory, STATE, content, algorithm)
    elif content is not None:
        directory.make(FILES, sync=False)
        content(Path(directory.path, FILES))
        entries = take_files(directory, algorithm)
    random: list[FileEntry] = []
    if facts.random is not None:
        packed = pack(facts.random, copy=False)
        random, _ = write_packed(directory, RANDOM, packed, algorithm)
    others = () if gather is None else gather(algorithm)
    of_others = [entry for shard, text in others for entry in files_of(shard, text, algorithm)]
    manifest = Manifest(
        format=1 if world_size == 1 else 2,
        keisei=__version__,
        run=facts.run,
        step=facts.step,
        attempt=facts.attempt,
        number=number,
        created_at=datetime.now().astimezone().isoformat(),
        position=facts.position,
        metrics={name: float(value) for name, value in facts.metrics.items()},
        kind=_kind_of(content),
        digest=joined_digest(entries, arrays, [shard for shard, _ in others], algorithm),
        algorithm=algorithm,  # type: ignore[arg-type] # it is one of the two
        files=entries + random + of_others,
        arrays=arrays,
        rank=rank,
        world_size=world_size,
    )
    text = encode(manifest)
    files.write_atomic(directory, MANIFEST, text)
    return manifest, text


def _kind_of(content: Content) -> Literal["state", "files", "nothing"]:
    if content is None:
        return "nothing"
    return "state" if isinstance(content, Packed) else "files"
