"""What provenance records of a run, as comparisons need it: its code, packages and machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

Snapshot = Mapping[str, object]
_SHORT = 12  # characters of a commit


def machine_class(snapshot: Snapshot | None) -> str | None:
    """Return what kind of machine a run was on, in words: GPUs and processor, model and number.

    Args:
        snapshot: what the run was started from; ``None`` where that is not recorded.

    Returns:
        ``None`` where it is not known.
    """
    machine = _part(snapshot, "machine")
    gpus = machine.get("gpus")
    models = Counter(
        str(gpu.get("model") or "GPU")
        for gpu in (gpus if isinstance(gpus, list) else [])
        if isinstance(gpu, Mapping)
    )
    known = [f"{count} x {model}" for model, count in sorted(models.items())]
    if machine.get("processor"):
        known.append(f"{machine.get('cores') or '?'} cores of {machine['processor']}")
    return ", ".join(known) or None


def code_of(snapshot: Snapshot | None) -> str | None:
    """Return which code a run was started from, in words: its commit, and what differs from that.

    Args:
        snapshot: what the run was started from; ``None`` where that is not recorded.

    Returns:
        ``None`` where it is not known.
    """
    code = _part(snapshot, "code")
    if "changed" not in code:  # there was no git, or it had a problem
        return None
    commit = str(code.get("commit") or "no commit")[:_SHORT]
    if not code.get("is_dirty"):
        return commit
    digest = str(code.get("digest") or "unknown").rpartition(":")[2][:_SHORT]
    return f"{commit} with changes {digest}"


def subjects(snapshot: Snapshot | None) -> dict[str, dict[str, object]]:
    """Return what is to be compared of a snapshot: a flat mapping for each of its subjects.

    Args:
        snapshot: what the run was started from; ``None`` where that is not recorded.

    Returns:
        `code`, `packages` and `machine`; without those that are not recorded.
    """
    code, machine = _part(snapshot, "code"), _part(snapshot, "machine")
    found: dict[str, dict[str, object]] = {}
    if (words := code_of(snapshot)) is not None:
        number = [code.get(key) or 0 for key in ("changed", "untracked")]
        found["code"] = {
            "commit": words,
            "branch": code.get("branch"),
            "changes": f"{number[0]} changed, {number[1]} untracked",
        }
    if packages := _part(snapshot, "packages"):
        found["packages"] = {str(name): _version(about) for name, about in packages.items()}
    if machine:
        kind = machine_class(snapshot)
        names = ("host", "system", "python", "driver", "container", "memory_bytes")
        found["machine"] = {"kind": kind, **{name: machine.get(name) for name in names}}
    return found


def _version(about: object) -> object:
    if not isinstance(about, Mapping):
        return about
    commit = about.get("commit")
    return f"{about.get('version')} ({str(commit)[:_SHORT]})" if commit else about.get("version")


def _part(snapshot: Snapshot | None, name: str) -> Mapping[str, object]:
    found = (snapshot or {}).get(name)
    return found if isinstance(found, Mapping) else {}
