"""Which copies of a run's checkpoints are missing at its URL, and which may go: plain functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keisei.checkpoints.manifest import Manifest
from keisei.checkpoints.policy import kept
from keisei.checkpoints.values import Checkpoint
from keisei.config.schema import CheckpointsConfig


def missing(local: Sequence[tuple[str, Manifest]], remote: Mapping[str, Manifest]) -> list[str]:
    """Return the names of the local checkpoints that have no copy, the newest first.

    One of the same name with another content is no copy.

    Args:
        local: the names and manifests, in the order of their commits.
        remote: the manifests of the copies, by name.
    """
    return [name for name, manifest in reversed(local) if not _is_copy(remote.get(name), manifest)]


def superfluous(
    local: Mapping[str, Manifest],
    remote: Mapping[str, Manifest],
    policy: CheckpointsConfig | None,
) -> list[str]:
    """Return the names of the copies that may go, the oldest first.

    What stands locally stays, and what a resume has left behind goes. Of the rest the policy
    decides as if it all stood in one directory.

    Args:
        local: the manifests of the checkpoints, by name.
        remote: the manifests of their copies, by name.
        policy: what is kept; ``None`` keeps all.
    """
    everything = {**remote, **local}
    steps = [name for name in newest_first(everything) if everything[name].step is not None]
    there = [
        name
        for name in reversed(steps)
        if not any(_goes_before(everything[other], everything[name]) for other in steps)
    ]
    stay = there if policy is None else kept(policy, [_as_value(n, everything[n]) for n in there])
    return [name for name in reversed(steps) if name not in stay and name not in local]


def adopted(manifest: Manifest, run: str, attempt: int) -> Manifest:
    """Return the manifest of a copy as the checkpoint of a run that begins anew with it.

    Its place in the journal is lost with the disk that had the journal.

    Args:
        manifest: the copy's.
        run: the id of the session that takes it.
        attempt: its attempt.
    """
    mine = {"run": run, "attempt": attempt, "number": 1, "position": None}
    return manifest if manifest.run == run else manifest.model_copy(update=mine)


def _is_copy(copy: Manifest | None, manifest: Manifest) -> bool:
    """Return whether a copy is a checkpoint's; of one that was fetched, it has other facts."""
    if copy is None or copy == manifest:
        return copy is not None
    same = (copy.step, copy.digest, copy.files) == (manifest.step, manifest.digest, manifest.files)
    return same and copy.run != manifest.run


def _goes_before(other: Manifest, manifest: Manifest) -> bool:
    """Return whether a later attempt has gone on from before a checkpoint: it counts from there."""
    return (
        other.run == manifest.run
        and other.attempt > manifest.attempt
        and other.number <= manifest.number
    )


def newest_first(manifests: Mapping[str, Manifest]) -> list[str]:
    """Return the names of checkpoints, those that were committed last first.

    A run that began anew on another disk counts from 1 again; its id is newer.
    """
    return sorted(manifests, key=lambda n: _order(manifests[n]), reverse=True)


def _order(manifest: Manifest) -> tuple[str, int, int]:
    return manifest.run, manifest.number, manifest.attempt


def _as_value(name: str, manifest: Manifest) -> Checkpoint:
    """Return a checkpoint as the policy takes it, its name in place of its path."""
    return Checkpoint(
        step=manifest.step,
        attempt=manifest.attempt,
        path=name,
        size=sum(file.size for file in manifest.files),
        digest=manifest.digest,
        metrics=dict(manifest.metrics),
        created_at=manifest.created_at,
    )
