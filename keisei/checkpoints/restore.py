"""The newest checkpoint that verifies, or the one that was asked for, read back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from keisei._io.directories import OpenDirectory
from keisei._io.switching import quick_switches
from keisei._log import logger
from keisei.checkpoints import failing
from keisei.checkpoints.layout import BEST, CORRUPT, LATEST, checkpoint_name, step_of
from keisei.checkpoints.listing import Fault, Found, Stored, found
from keisei.checkpoints.opening import GoneError
from keisei.checkpoints.pointers import point, pointed
from keisei.checkpoints.reading import ALONE, Loaded, read_checkpoint, read_path
from keisei.checkpoints.shards import Reader
from keisei.errors import CheckpointError, describe, quoted

_DAMAGE = ("damaged", "failing")
_TRIES = 10  # where checkpoints are removed while they are looked for


def load(
    models: OpenDirectory,
    which: str | int | os.PathLike[str] = LATEST,
    *,
    run: str | None,
    set_aside: bool,
    ranked: Callable[[Sequence[Stored]], Sequence[Stored]] | None = None,
    reader: Reader = ALONE,
) -> Loaded | None:
    """Return a checkpoint's content, verified as it is read; it blocks.

    Where it does not verify, the next older one is read; with a path only that one. What did not
    verify is logged. Of a checkpoint of several ranks a rank reads its own shard; rank 0 verifies
    those of the others, too.

    Args:
        models: the run's models directory.
        which: `latest`, `best`, a step, or a checkpoint's path.
        run: the session's id; checkpoints of another are passed over, unless named by a path.
        set_aside: whether what does not verify is renamed, once another one has been read.
        ranked: returns checkpoints, which it gets in the order of their commits, the best first;
            without it `best` is the one that the pointer of this name names.
        reader: which rank reads, where there are several.

    Returns:
        ``None`` where the run has no checkpoint.

    Raises:
        CheckpointError: none of them verifies, there is none of that step or path, it is of a
            newer format, or it cannot be read.
        WorldSizeError: it was saved by another number of ranks, each with a state of its own.
        MissingExtraError: a library is missing that is needed to verify or to read it.
    """
    with quick_switches():
        if not isinstance(which, int) and which not in (LATEST, BEST):
            return read_path(os.fspath(which), reader)
        return _load(models, which, run, set_aside, ranked, reader)


def _load(
    models: OpenDirectory,
    which: str | int | os.PathLike[str],
    run: str | None,
    set_aside: bool,
    ranked: Callable[[Sequence[Stored]], Sequence[Stored]] | None,
    reader: Reader,
) -> Loaded | None:
    for _ in range(_TRIES):
        there = found(models, run)
        candidates, faults = _candidates(models, which, there, ranked)
        for fault in there.unusable:
            if fault.kind == "foreign":
                logger.warning("%s is passed over: %s", quoted(fault.name), fault.problem)
        if not candidates and not faults:
            return None
        try:
            return _load_first(models, candidates, faults, set_aside, reader)
        except GoneError:
            continue
    raise CheckpointError(
        f"the checkpoints in {quoted(models.path, 300)} are removed while they are looked for",
        path=models.path,
    )


def _candidates(
    models: OpenDirectory,
    which: str | int | os.PathLike[str],
    there: Found,
    ranked: Callable[[Sequence[Stored]], Sequence[Stored]] | None,
) -> tuple[list[Stored], list[Fault]]:
    """Return what to read, the first that verifies, and what cannot be read of that."""
    unusable = [fault for fault in there.unusable if step_of(fault.name) is not None]
    newest_first = there.checkpoints[::-1]
    if isinstance(which, int):
        return _of_step(models, which, newest_first, unusable)
    for fault in unusable:
        if fault.kind in ("newer", "unreadable"):
            # It may be the one: an older one in its place would undo what it holds.
            raise CheckpointError(fault.problem, path=os.path.join(models.path, fault.name))
    damaged = [fault for fault in unusable if fault.kind in _DAMAGE]
    if which == LATEST:
        return newest_first, damaged
    if ranked is not None:
        best = list(ranked(there.checkpoints))
    else:
        with failing.reading(models.path):
            name = pointed(models, BEST)
        best = [stored for stored in newest_first if stored.name == name]
        damaged_best = any(fault.name == name for fault in damaged)
        if damaged_best:
            best = newest_first
    if not best and newest_first:
        raise CheckpointError(
            f"no checkpoint in {quoted(models.path, 300)} is known to be the best: set keep_best "
            "to the metric that decides it, and save checkpoints with that metric",
            path=models.path,
        )
    return best + [stored for stored in newest_first if stored not in best], damaged


def _of_step(
    models: OpenDirectory, step: int, newest_first: list[Stored], unusable: list[Fault]
) -> tuple[list[Stored], list[Fault]]:
    """Return a step's checkpoint, and those that are older, to be read where it does not verify."""
    name = checkpoint_name(step)
    path = os.path.join(models.path, name)
    if (fault := next((fault for fault in unusable if fault.name == name), None)) is not None:
        if fault.kind not in _DAMAGE:
            raise CheckpointError(f"{quoted(path, 300)}: {fault.problem}", path=path)
        older = [stored for stored in newest_first if (stored.manifest.step or 0) < step]
        return older, [fault]
    asked = next((stored for stored in newest_first if stored.name == name), None)
    if asked is not None:
        return newest_first[newest_first.index(asked) :], []
    if not newest_first and not unusable:
        return [], []
    there = ", ".join(str(stored.manifest.step) for stored in newest_first[:20]) or "none"
    raise CheckpointError(
        f"there is no checkpoint of step {step} in {quoted(models.path, 300)}: the steps there "
        f"are {there}{', ...' if len(newest_first) > 20 else ''}",
        path=path,
    )


def _load_first(
    models: OpenDirectory,
    candidates: Iterable[Stored],
    faults: list[Fault],
    set_aside: bool,
    reader: Reader,
) -> Loaded:
    """Return the first checkpoint that verifies, and then set those aside that did not.

    Nothing is set aside where none verifies: the next start would find an empty directory, and
    would begin from scratch.
    """
    faults = list(faults)
    for stored in candidates:
        try:
            loaded = read_checkpoint(models, stored, reader)
        except CheckpointError as exc:
            if not exc.corrupt:
                raise
            faults.append(Fault(stored.name, str(exc)))
            continue
        aside = []
        for fault in faults:
            now = _set_aside(models, fault, stored.name) if set_aside else None
            aside += [now] if now else []
            what = f"it is set aside as {now}" if now else "it stays where it is"
            logger.warning("%s; %s, and %s is restored", _said(fault), what, stored.name)
        return loaded._replace(faults=faults, aside=aside)
    raise CheckpointError(
        f"no checkpoint in {quoted(models.path, 300)} verifies, and nothing is changed: "
        f"{'; '.join(map(_said, faults[:5]))}. Restore a copy by its path, or "
        "remove them all to begin from scratch",
        path=models.path,
        corrupt=True,
    )


def _said(fault: Fault) -> str:
    return f"{quoted(fault.name)}: {fault.problem}"


def _set_aside(models: OpenDirectory, fault: Fault, restored: str) -> str | None:
    """Rename what does not verify, and return its new name; ``None`` where it cannot be."""
    try:
        if pointed(models, LATEST) == fault.name:
            point(models, LATEST, restored)
        if pointed(models, BEST) == fault.name:
            point(models, BEST, None)
        return models.set_aside(fault.name, CORRUPT)
    except FileNotFoundError:
        return None
    except OSError as exc:
        logger.warning("%s cannot be set aside: %s", quoted(fault.name), describe(exc))
        return None
