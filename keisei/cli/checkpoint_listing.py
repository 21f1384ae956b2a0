"""What checkpoints a run has, how they stand, what its policy would keep. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pydantic_core

from keisei._io.directories import OpenDirectory
from keisei.checkpoints import layout, pointers, policy
from keisei.checkpoints.listing import Fault, Found, Stored, found
from keisei.checkpoints.verify import verify
from keisei.config.schema import CheckpointsConfig
from keisei.errors import CheckpointError, quoted
from keisei.run.find import FoundRun, absolute_path, read_file, reason
from keisei.run.layout import CONFIG_FILE
from keisei.store import directories


@dataclass(frozen=True)
class Listing:
    """The checkpoints of a run.

    Attributes:
        run: the run.
        models: the directory that they are in.
        there: what stands there.
        latest: the name of the checkpoint that `latest` points at.
        best: the name of the one that `best` points at.
        policy: the section `checkpoints` of the config that the run has recorded; ``None`` where
            it cannot be read.
        kept: the names of those that this policy keeps.
        verified: by name, what is wrong with each that was verified: nothing where all is well.
        unverified: how many were not verified, because there was too much to read.
    """

    run: FoundRun
    models: str
    there: Found
    latest: str | None
    best: str | None
    policy: CheckpointsConfig | None
    kept: frozenset[str]
    verified: dict[str, list[str]]
    unverified: int

    @property
    def faults(self) -> list[Fault]:
        """Those that cannot be used, and why: a bad manifest, or files that are not as it says."""
        bad = [
            Fault(name, "; ".join(problems)) for name, problems in self.verified.items() if problems
        ]
        return [*self.there.unusable, *bad]


def models_of(run: FoundRun, models: str | None = None) -> str:
    """Return the directory of a run's models.

    Args:
        run: the run.
        models: where the user says that it is.
    """
    return directories.models_of(run.directory) if models is None else absolute_path(models)


def list_checkpoints(
    run: FoundRun,
    models: str,
    *,
    most: int | None = 0,
    progress: Callable[[str], object] = lambda name: None,
) -> Listing:
    """Return the checkpoints of a run, and verify them, the newest first.

    Args:
        run: the run.
        models: the directory of its models.
        most: how many bytes to read in order to verify; ``None`` for all, 0 for none.
        progress: called with the name of each that is about to be verified.

    Raises:
        CheckpointError: the directory cannot be read.
        OSError: it is missing, or no directory.
    """
    with _opened(models) as directory:
        there = found(directory, run.record.session_id if run.record is not None else None)
        config = policy_of(run)
        checkpoints = [stored.checkpoint for stored in there.checkpoints]
        kept = policy.kept(config, checkpoints) if config is not None else ()
        verified: dict[str, list[str]] = {}
        candidates = [*reversed(there.checkpoints), *filter(None, [there.final_model])]
        for stored in candidates if most != 0 else []:
            most = None if most is None else most - stored.checkpoint.size
            if most is None or most >= 0 or not verified:
                progress(stored.name)
                verified[stored.name] = _problems(directory, stored)
        return Listing(
            run,
            models,
            there,
            latest=pointers.pointed(directory, layout.LATEST),
            best=pointers.pointed(directory, layout.BEST),
            policy=config,
            kept=frozenset(s.name for s in there.checkpoints if s.checkpoint.path in kept),
            verified=verified,
            unverified=len(candidates) - len(verified),
        )


def _opened(models: str) -> OpenDirectory:
    try:
        return OpenDirectory(models)
    except FileNotFoundError as exc:
        hint = "--models or KEISEI_MODEL_DIR says where a run's models are"
        raise FileNotFoundError(f"there is no directory {quoted(models, 300)}: {hint}") from exc


def _problems(directory: OpenDirectory, stored: Stored) -> list[str]:
    try:
        return verify(directory, stored.name)
    except CheckpointError as exc:
        return [str(exc)]
    except FileNotFoundError:
        return []  # the run is at work: its policy has just removed it
    except OSError as exc:
        return [reason(exc)]


def leftovers(listing: Listing) -> list[tuple[str, str]]:
    """Return what is no checkpoint, or none any more: what it is, and its name."""
    alive = listing.run.live_owner is not None
    there = listing.there
    kinds = {
        "being written" if alive else "left over by a save that was interrupted": there.staged,
        "being removed" if alive else "left over by a removal": there.removing,
        "set aside, for it does not verify": there.corrupt,
        "superseded: an attempt went on from an earlier one": there.superseded,
    }
    return [(what, name) for what, names in kinds.items() for name in names]


def policy_of(run: FoundRun) -> CheckpointsConfig | None:
    """Return the policy in the config that a run has recorded; ``None`` where there is none."""
    try:
        with OpenDirectory(run.directory) as directory:
            config = pydantic_core.from_json(read_file(directory, CONFIG_FILE))
        return CheckpointsConfig.model_validate(config.get("checkpoints", {}))
    except (OSError, ValueError, AttributeError):
        return None
