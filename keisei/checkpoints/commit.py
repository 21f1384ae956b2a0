"""One checkpoint, whole or absent.

1. A directory `.checkpoint_{step}.ckpt.tmp-{token}` is made, and its lock taken.
2. The state and the random states are written there, digested on their way, and synced.
3. The manifest is written, and the directory synced.
4. The directory gets its name by one rename, and `latest` points at it by another.
5. The models directory is synced.

An error before 4 removes what was made. A process that dies leaves the directory of 1, which the
next save removes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei._log import logger
from keisei._version import __version__
from keisei.checkpoints import failing
from keisei.checkpoints.digests import best_algorithm
from keisei.checkpoints.forecast import check_space
from keisei.checkpoints.layout import CORRUPT, FILES, LATEST, MANIFEST, SUPERSEDED, checkpoint_name
from keisei.checkpoints.listing import Found, Stored, found, stored_as
from keisei.checkpoints.manifest import FileEntry, Manifest, content_digest, encode
from keisei.checkpoints.opening import GoneError, is_named, opened, read_manifest
from keisei.checkpoints.packing import RANDOM, STATE, Packed, write_packed
from keisei.checkpoints.pointers import point
from keisei.checkpoints.staging import clear, remove_unused, staged, take_files
from keisei.checkpoints.values import Checkpoint
from keisei.checkpoints.verify import verify
from keisei.errors import CheckpointError, describe, quoted
from keisei.journal.records import Position

Writer: TypeAlias = Callable[[Path], object]

_TRIES = 3  # where another process commits the same step


class Facts(NamedTuple):
    """What a checkpoint's manifest says of it beside its content.

    Attributes:
        run: the session's id, which is the same in all attempts of a run.
        step: the training step; ``None`` for the final model.
        attempt: the attempt that saves it.
        position: how far the journal was when the state was taken.
        metrics: the metrics that it is saved with.
        random: the packed random states.
    """

    run: str
    step: int | None
    attempt: int
    position: Position | None
    metrics: Mapping[str, float]
    random: Packed | None = None


def commit(
    models: OpenDirectory,
    content: Packed | Writer,
    facts: Facts,
    *,
    before_rename: Callable[[], object] = lambda: None,
) -> Checkpoint:
    """Commit a checkpoint, and point `latest` at it; it blocks.

    A step that exists already with the same content is returned as it is; one that does not verify
    is set aside, and a final model is replaced.

    Args:
        models: the run's models directory.
        content: the packed state, or a function that writes files into the directory it is given.
        facts: what the manifest says of it.
        before_rename: called when all is written and synced, and nothing is visible yet.

    Raises:
        CheckpointError: it cannot be written, or the step exists with other content; what stood
            there before is as it was, and nothing else is left over.
        MissingExtraError: the state holds arrays, and what writes them is not installed.
    """
    name = checkpoint_name(facts.step)
    with failing.saving(os.path.join(models.path, name)):
        clear(models)
        if isinstance(content, Packed):
            check_space(models, content.nbytes)
        there = found(models, facts.run)
        for fault in there.unusable:
            if fault.kind in ("failing", "unreadable"):  # and so is how many commits there were
                raise CheckpointError(fault.problem, path=os.path.join(models.path, fault.name))
        with staged(models, name) as (directory, temporary):
            stored = _write(directory, name, content, facts, there)
            before_rename()
            if not is_named(models, temporary, directory):
                raise FileNotFoundError(errno.ENOENT, "it was moved or replaced", directory.path)
            return _settle(models, temporary, stored, there).checkpoint


def _write(
    directory: OpenDirectory, name: str, content: Packed | Writer, facts: Facts, there: Found
) -> Stored:
    """Write a whole checkpoint into a directory, the manifest last, all of it synced."""
    same = [stored for stored in there.checkpoints if stored.name == name]
    # Two that are to be compared need digests of one kind.
    algorithm = same[0].manifest.algorithm if same else best_algorithm()
    if isinstance(content, Packed):
        entries, arrays = write_packed(directory, STATE, content, algorithm)
        _sync(directory, entries)
    else:
        directory.make(FILES, sync=False)
        content(Path(directory.path, FILES))
        entries, arrays = take_files(directory, algorithm), []
    random = write_packed(directory, RANDOM, facts.random, algorithm)[0] if facts.random else []
    _sync(directory, random)
    manifest = Manifest(
        keisei=__version__,
        run=facts.run,
        step=facts.step,
        attempt=facts.attempt,
        number=there.next_number,
        created_at=datetime.now().astimezone().isoformat(),
        position=facts.position,
        metrics={name: float(value) for name, value in facts.metrics.items()},
        kind="state" if isinstance(content, Packed) else "files",
        digest=content_digest(entries, arrays, algorithm),
        algorithm=algorithm,  # type: ignore[arg-type] # it is one of the two
        files=entries + random,
        arrays=arrays,
    )
    text = encode(manifest)
    files.write_atomic(directory, MANIFEST, text)
    return stored_as(os.path.dirname(directory.path), name, manifest, len(text))


def _sync(directory: OpenDirectory, entries: Sequence[FileEntry]) -> None:
    for entry in entries:
        directory.sync_file(entry.name)


def _settle(models: OpenDirectory, temporary: str, new: Stored, there: Found) -> Stored:
    """Rename what is staged to its name, unless the same stands there, which is returned."""
    for _ in range(_TRIES):
        try:
            same, replaced = _make_way(models, new)
        except GoneError:
            continue
        if same is not None:
            _point_latest(models, there.checkpoints[-1] if there.checkpoints else same)
            models.sync()
            return same
        try:
            models.replace(temporary, new.name)
        except OSError as exc:
            if replaced is not None:
                models.replace(replaced, new.name)
            if exc.errno in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster
                continue
            raise
        _point_latest(models, new)
        models.sync()
        if replaced is not None and there.final_model is not None:
            remove_unused(models, replaced)
        return new
    raise FileExistsError(errno.EEXIST, "another process commits the same step", new.name)


def _make_way(models: OpenDirectory, new: Stored) -> tuple[Stored | None, str | None]:
    """Return the same checkpoint where it stands already, and what a final model is called now.

    Raises:
        CheckpointError: another checkpoint stands there, and verifies.
    """
    if not models.holds(new.name):
        return None, None
    path = new.checkpoint.path
    if problems := verify(models, new.name):
        aside = models.set_aside(new.name, CORRUPT)
        logger.warning(
            "%s does not verify, and is set aside as %s: %s",
            quoted(path, 300),
            quoted(aside),
            problems[0],
        )
        return None, None
    with opened(models, new.name) as directory:
        manifest, length = read_manifest(directory)
    if (manifest.run, manifest.digest) == (new.manifest.run, new.manifest.digest):
        return stored_as(models.path, new.name, manifest, length), None
    if new.manifest.step is None:
        return None, models.set_aside(new.name, SUPERSEDED)
    raise CheckpointError(
        f"{quoted(path, 300)} exists already with other content, of attempt {manifest.attempt} at "
        f"{manifest.created_at}: save it as another step, restore that one and go on from there, "
        "or remove it first",
        path=path,
    )


def _point_latest(models: OpenDirectory, newest: Stored) -> None:
    """Point `latest` at the newest checkpoint; nothing of keisei's needs it to restore one."""
    if newest.manifest.step is None:
        return
    try:
        point(models, LATEST, newest.name)
    except OSError as exc:
        logger.warning(
            "%s is saved, but %s does not point at it: %s",
            quoted(newest.checkpoint.path, 300),
            LATEST,
            describe(exc),
        )
