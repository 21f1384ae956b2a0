"""One checkpoint, whole or absent.

1. A directory `.checkpoint_{step}.ckpt.tmp-{token}` is made, and its lock taken.
2. The state and the random states are written there, digested on their way, and synced.
3. The manifest is written, and the directory synced.
4. The directory gets its name by one rename, and `latest` points at it by another.
5. The models directory is synced.

Of several ranks each does 1 and 2, and rank 0 the rest (see `meeting`).

An error before 4 removes what was made. A process that dies leaves the directory of 1, which the
next save removes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack

from keisei._io.directories import OpenDirectory
from keisei._io.exchange import exchange
from keisei._io.switching import quick_switches
from keisei._log import logger
from keisei.checkpoints import failing
from keisei.checkpoints.content import Content, Facts, write_content
from keisei.checkpoints.contributing import contribute
from keisei.checkpoints.digests import best_algorithm
from keisei.checkpoints.forecast import check_space
from keisei.checkpoints.layout import CORRUPT, LATEST, SUPERSEDED, checkpoint_name
from keisei.checkpoints.leading import led
from keisei.checkpoints.listing import Found, Stored, found, stored_as
from keisei.checkpoints.meeting import Ranks
from keisei.checkpoints.opening import GoneError, is_named, opened, read_manifest
from keisei.checkpoints.packing import Packed
from keisei.checkpoints.pointers import point
from keisei.checkpoints.staging import clear, remove_unused, staged
from keisei.checkpoints.values import Checkpoint
from keisei.checkpoints.verify import verify
from keisei.errors import CheckpointError, describe, quoted

_TRIES = 3  # where another process commits the same step


def commit(
    models: OpenDirectory,
    content: Content,
    facts: Facts,
    *,
    before_rename: Callable[[], object] = lambda: None,
    ranks: Ranks | None = None,
) -> Checkpoint:
    """Commit a checkpoint, and point `latest` at it; it blocks.

    A step that exists already with the same content is returned as it is; one that does not verify
    is set aside, and a final model is replaced.

    Args:
        models: the run's models directory.
        content: the packed state, or a function that writes files into the directory it is given;
            ``None``, on a rank above 0, for nothing.
        facts: what the manifest says of it.
        before_rename: called when all is written and synced, and nothing is visible yet; not
            where the same stands there already.
        ranks: which rank this is, where there are several: each has to call this.

    Raises:
        CheckpointError: it cannot be written, or the step exists with other content; what stood
            there before is as it was, and nothing else is left over.
        MissingExtraError: the state holds arrays, and what writes them is not installed.
    """
    if ranks is not None and ranks.rank > 0:
        return contribute(models, content, facts, ranks, before_ready=before_rename)
    name = checkpoint_name(facts.step)
    with quick_switches(), failing.saving(os.path.join(models.path, name)), ExitStack() as stack:
        if ranks is None or ranks.world_size == 1:
            there = _prepared(models, content, facts)
            directory, temporary = stack.enter_context(staged(models, name))
            gather, world_size = None, 1
        else:
            directory, temporary, gather = stack.enter_context(led(models, facts, ranks))
            there, world_size = _prepared(models, content, facts, spare=temporary), ranks.world_size
        manifest, text = write_content(
            directory,
            content,
            facts,
            _algorithm(there, name),
            number=there.next_number,
            world_size=world_size,
            gather=gather,
        )
        new = stored_as(models.path, name, manifest, len(text))
        return _appear(models, directory, temporary, new, there, before_rename)


def _prepared(
    models: OpenDirectory, content: Content, facts: Facts, *, spare: str | None = None
) -> Found:
    """Remove what dead savers have left, and return what stands there; check that more may."""
    clear(models, spare=spare)
    if isinstance(content, Packed):
        check_space(models, content.nbytes)
    there = found(models, facts.run)
    for fault in there.unusable:
        if fault.kind in ("failing", "unreadable"):  # and so is how many commits there were
            raise CheckpointError(fault.problem, path=os.path.join(models.path, fault.name))
    return there


def _algorithm(there: Found, name: str) -> str:
    """Return by what to digest: two that are to be compared need digests of one kind."""
    all_there = [*there.checkpoints, *filter(None, [there.final_model])]
    same = [stored for stored in all_there if stored.name == name]
    return same[0].manifest.algorithm if same else best_algorithm()


def _appear(
    models: OpenDirectory,
    directory: OpenDirectory,
    temporary: str,
    new: Stored,
    there: Found,
    before_rename: Callable[[], object],
) -> Checkpoint:
    """Rename what is written to its name, where the same does not stand there already."""
    for _ in range(_TRIES):
        standing = _standing(models, new.name)
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
    raise FileExistsError(errno.EEXIST, "another process commits the same step", new.name)


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
    models.guard()
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
