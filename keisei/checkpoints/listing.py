"""What checkpoints a models directory holds, by their manifests."""

from __future__ import annotations

import errno
import os
from typing import Literal, NamedTuple, TypeAlias

from keisei._io.directories import OpenDirectory
from keisei.checkpoints import failing
from keisei.checkpoints.layout import Kind, kind_of
from keisei.checkpoints.manifest import Manifest
from keisei.checkpoints.opening import GoneError, opened, read_manifest
from keisei.checkpoints.values import Checkpoint
from keisei.errors import CheckpointError, quoted

_TRIES = 10  # where checkpoints are removed while they are listed

FaultKind: TypeAlias = Literal["damaged", "failing", "unreadable", "newer", "foreign"]


class Stored(NamedTuple):
    """A checkpoint whose manifest is good; its files may still not be.

    Attributes:
        name: its directory's name.
        manifest: what it says of itself.
        checkpoint: the same as the program sees it.
    """

    name: str
    manifest: Manifest
    checkpoint: Checkpoint


class Fault(NamedTuple):
    """A checkpoint that cannot be used, and why.

    Attributes:
        name: its directory's name.
        problem: what is wrong, in one line.
        kind: `damaged`; `failing`, where the disk fails to read it, now or for ever; `unreadable`,
            where it may not be read now; `newer`, where only a newer keisei can read it;
            `foreign`, where it is another run's.
    """

    name: str
    problem: str
    kind: FaultKind = "damaged"


class Found(NamedTuple):
    """What stands in a models directory.

    Attributes:
        checkpoints: the run's checkpoints in the order of their commits.
        final_model: the final model.
        unusable: checkpoints and final models that are not among those.
        staged: what savers are writing, or have left.
        removing: what is being removed, or was when its process died.
        corrupt: what did not verify, and was set aside.
        superseded: what a resumed run has left behind.
    """

    checkpoints: list[Stored]
    final_model: Stored | None
    unusable: list[Fault]
    staged: list[str]
    removing: list[str]
    corrupt: list[str]
    superseded: list[str]

    @property
    def next_number(self) -> int:
        """The number of the next commit."""
        last = [*self.checkpoints, *filter(None, [self.final_model])]
        return 1 + max((stored.manifest.number for stored in last), default=0)


def found(models: OpenDirectory, run: str | None = None) -> Found:
    """Return what stands in a models directory; it blocks, and changes nothing.

    Args:
        models: the models directory.
        run: the session's id; checkpoints of another are unusable. ``None`` takes all.

    Raises:
        CheckpointError: it cannot be read, or checkpoints are removed as fast as they are listed.
    """
    for _ in range(_TRIES):
        there, is_whole = _found(models, run)
        if is_whole:
            return there
    if there.checkpoints:  # older than what has come meanwhile, but no less of the run
        return there
    raise CheckpointError(
        f"the checkpoints in {quoted(models.path, 300)} are removed while they are looked for",
        path=models.path,
    )


def _found(models: OpenDirectory, run: str | None) -> tuple[Found, bool]:
    """Return what stands there, and whether all that was listed still stood there a moment later.

    What is removed meanwhile has a newer one in its place, which is in no older list.
    """
    is_whole = True
    with failing.reading(models.path):
        names = sorted(models.names())
    by_kind: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for name in names:
        by_kind[kind_of(name)].append(name)
    usable: dict[Kind, list[Stored]] = {Kind.CHECKPOINT: [], Kind.FINAL_MODEL: []}
    unusable = []
    for kind, into in usable.items():
        for name in by_kind[kind]:
            match _looked_at(models, name, run):
                case Stored() as stored:
                    into.append(stored)
                case Fault() as fault:
                    unusable.append(fault)
                case None:
                    is_whole = False
    usable[Kind.CHECKPOINT].sort(key=lambda stored: (stored.manifest.number, stored.manifest.step))
    there = Found(
        usable[Kind.CHECKPOINT],
        next(iter(usable[Kind.FINAL_MODEL]), None),
        unusable,
        by_kind[Kind.STAGED],
        by_kind[Kind.REMOVING],
        by_kind[Kind.CORRUPT],
        by_kind[Kind.SUPERSEDED],
    )
    return there, is_whole


def stored_as(above: str, name: str, manifest: Manifest, length: int) -> Stored:
    """Return a checkpoint as the program sees it.

    Args:
        above: the directory that it stands in.
        name: its name there.
        manifest: what it says of itself.
        length: the manifest's own bytes.
    """
    checkpoint = Checkpoint(
        step=manifest.step,
        attempt=manifest.attempt,
        path=os.path.join(above, name),
        size=length + sum(entry.size for entry in manifest.files),
        digest=manifest.digest,
        metrics=dict(manifest.metrics),
        created_at=manifest.created_at,
    )
    return Stored(name, manifest, checkpoint)


def _looked_at(models: OpenDirectory, name: str, run: str | None) -> Stored | Fault | None:
    try:
        with failing.reading(os.path.join(models.path, name)), opened(models, name) as directory:
            manifest, length = read_manifest(directory)
    except GoneError:
        return None
    except CheckpointError as exc:
        return Fault(name, str(exc), _kind_of(exc))
    if run is not None and manifest.run != run:
        return Fault(name, f"it is of another run, {quoted(manifest.run)}", "foreign")
    if kind_of(name) is not (Kind.FINAL_MODEL if manifest.step is None else Kind.CHECKPOINT):
        return Fault(name, "its manifest says that it is something else")
    if manifest.step is not None and name != f"checkpoint_{manifest.step}.ckpt":
        return Fault(name, f"its manifest says that it is of step {manifest.step}")
    return stored_as(models.path, name, manifest, length)


def _kind_of(exc: CheckpointError) -> FaultKind:
    if not isinstance(exc.__cause__, OSError):
        return "damaged" if exc.corrupt else "newer"
    if exc.__cause__.errno == errno.EIO:
        return "failing"
    return "damaged" if exc.corrupt else "unreadable"
