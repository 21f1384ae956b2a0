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
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei._io.exchange import exchange
from keisei._io.switching import quick_switches
from keisei._log import logger
from keisei._version import __version__
from keisei.checkpoints import failing
from keisei.checkpoints.digests import best_algorithm
from keisei.checkpoints.forecast import check_space
from keisei.checkpoints.layout import CORRUPT, FILES, LATEST, MANIFEST, SUPERSEDED, checkpoint_name
from keisei.checkpoints.listing import Found, Stored, found, stored_as
from keisei.checkpoints.manifest import FileEntry, Manifest, content_digest, encode
from keisei.checkpoints.opening import GoneError, is_named, opened, read_manifest
from keisei.checkpoints.packing import RANDOM, STATE, Packed, pack, write_packed
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
        random: the random states, which nobody changes any more.
    """

    run: str
    step: int | None
    attempt: int
    position: Position | None
    metrics: Mapping[str, float]
    random: Mapping[str, object] | None = None


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
        before_rename: called when all is written and synced, and nothing is visible yet; not
            where the same stands there already.

    Raises:
        CheckpointError: it cannot be written, or the step exists with other content; what stood
            there before is as it was, and nothing else is left over.
        MissingExtraError: the state holds arrays, and what writes them is not installed.
    """
    name = checkpoint_name(facts.step)
    with quick_switches(), failing.saving(os.path.join(models.path, name)):
        clear(models)
        if isinstance(content, Packed):
            check_space(models, content.nbytes)
        there = found(models, facts.run)
        for fault in there.unusable:
            if fault.kind in ("failing", "unreadable"):  # and so is how many commits there were
                raise CheckpointError(fault.problem, path=os.path.join(models.path, fault.name))
        with staged(models, name) as (directory, temporary):
            new = _write(directory, name, content, facts, there)
            for _ in range(_TRIES):
                standing = _standing(models, name)
                if standing is not None and _is_same(standing, new):
                    _point_latest(models, there.checkpoints[-1] if there.checkpoints else standing)
                    models.sync()
                    return standing.checkpoint
                before_rename()
                if not is_named(models, temporary, directory):
                    problem = "it was moved or replaced"
                    raise FileNotFoundError(errno.ENOENT, problem, directory.path)
                try:
                    _rename(models, temporary, new, standing)
                except FileExistsError:  # another process was faster
                    continue
                return new.checkpoint
        raise FileExistsError(errno.EEXIST, "another process commits the same step", name)


def _write(
    directory: OpenDirectory, name: str, content: Packed | Writer, facts: Facts, there: Found
) -> Stored:
    """Write a whole checkpoint into a directory, the manifest last, all of it synced."""
    all_there = [*there.checkpoints, *filter(None, [there.final_model])]
    same = [stored for stored in all_there if stored.name == name]
    # Two that are to be compared need digests of one kind.
    algorithm = same[0].manifest.algorithm if same else best_algorithm()
    if isinstance(content, Packed):
        entries, arrays = write_packed(directory, STATE, content, algorithm)
    else:
        directory.make(FILES, sync=False)
        content(Path(directory.path, FILES))
        entries, arrays = take_files(directory, algorithm), []
    random: list[FileEntry] = []
    if facts.random is not None:
        packed = pack(facts.random, copy=False)
        random, _ = write_packed(directory, RANDOM, packed, algorithm)
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


def _standing(models: OpenDirectory, name: str) -> Stored | None:
    """Return what stands under a name and verifies; what does not verify is set aside."""
    try:
        problems = verify(models, name)
        if not problems:
            with opened(models, name) as directory:
                return stored_as(models.path, name, *read_manifest(directory))
        aside = models.set_aside(name, CORRUPT)
    except (GoneError, FileNotFoundError):
        return None
    logger.warning(
        "%s does not verify, and is set aside as %s: %s",
        quoted(os.path.join(models.path, name), 300),
        quoted(aside),
        problems[0],
    )
    return None


def _is_same(standing: Stored, new: Stored) -> bool:
    """Return whether a checkpoint is the one that is to be saved.

    Raises:
        CheckpointError: it is another one of the same step.
    """
    there = standing.manifest
    if (there.run, there.digest) == (new.manifest.run, new.manifest.digest):
        return True
    if there.step is None:
        return False
    path = standing.checkpoint.path
    raise CheckpointError(
        f"{quoted(path, 300)} exists already with other content, of attempt {there.attempt} at "
        f"{there.created_at}: save it as another step, restore that one and go on from there, or "
        "remove it first",
        path=path,
    )


def _rename(models: OpenDirectory, temporary: str, new: Stored, replaced: Stored | None) -> None:
    """Rename what is staged to its name; a final model that stands there is removed after that.

    Raises:
        FileExistsError: another process has put a checkpoint there.
    """
    is_own = replaced is not None and replaced.manifest.run == new.manifest.run
    if is_own and exchange(models.fd, temporary, new.name):
        try:
            models.sync()
        except OSError:
            exchange(models.fd, temporary, new.name)
            raise
        return  # what stood there is what is staged now, and is removed as that
    # For an instant there is neither, where the system cannot do better.
    aside = None if replaced is None else models.set_aside(new.name, SUPERSEDED)
    _take_name(models, temporary, new.name, aside)
    _point_latest(models, new)
    models.sync()
    if aside is not None and is_own:
        remove_unused(models, aside)


def _take_name(models: OpenDirectory, temporary: str, name: str, aside: str | None) -> None:
    """Rename what is staged to a name that is free; what was set aside is back on a failure."""
    try:
        models.replace(temporary, name)
    except OSError as exc:
        if aside is not None:
            models.replace(aside, name)
        if exc.errno == errno.ENOTEMPTY:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), exc.filename) from exc
        raise


def _point_latest(models: OpenDirectory, stored: Stored) -> None:
    """Point `latest` at the newest checkpoint; nothing of keisei's needs it to restore one."""
    if stored.manifest.step is None:
        return
    try:
        point(models, LATEST, stored.name)
    except OSError as exc:
        logger.warning(
            "%s is saved, but %s does not point at it: %s",
            quoted(stored.checkpoint.path, 300),
            LATEST,
            describe(exc),
        )
