"""States that are packed, written to a directory, and read back."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.digests import PLAIN
from keisei.checkpoints.manifest import ArrayEntry, FileEntry, Manifest, content_digest
from keisei.checkpoints.packing import STATE, pack, read_packed, write_packed


def manifest_of(
    files: list[FileEntry], arrays: list[ArrayEntry], algorithm: str = PLAIN, **facts: Any
) -> Manifest:
    """Describe a checkpoint of some files."""
    known: dict[str, Any] = {
        "keisei": "0.1.0",
        "run": "run-1",
        "step": 1,
        "attempt": 1,
        "number": 1,
        "created_at": "2026-01-02T03:04:05+00:00",
        "kind": "state",
        "digest": content_digest(files, arrays, algorithm),
        "algorithm": algorithm,
    }
    return Manifest(**(known | facts), files=files, arrays=arrays)


def saved(into: Path, state: Mapping[Any, Any], *, copy: bool = True) -> Manifest:
    """Write a state into a directory, which is made where it is missing."""
    into.mkdir(exist_ok=True)
    with OpenDirectory(str(into)) as directory:
        return manifest_of(*write_packed(directory, STATE, pack(state, copy=copy), PLAIN))


def read_back(path: Path, manifest: Manifest) -> dict[Any, Any]:
    """Read a state from a directory."""
    with OpenDirectory(str(path)) as directory:
        return read_packed(directory, STATE, manifest)


def round_trip(state: Mapping[Any, Any], *, copy: bool = True) -> dict[Any, Any]:
    """Return what a state is after it was saved and read back."""
    with tempfile.TemporaryDirectory() as into:
        return read_back(Path(into), saved(Path(into), state, copy=copy))


def same(left: Any, right: Any) -> bool:
    """Return whether two values are equal to the last bit, and of the same types throughout."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items(), strict=False)
        return len(left) == len(right) and all(
            same(a, b) and same(x, y) for (a, x), (b, y) in pairs
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float | complex):
        return repr(left) == repr(right)
    if hasattr(left, "tobytes"):  # an array or a scalar of numpy
        alike = (left.dtype, left.shape) == (right.dtype, right.shape)
        return alike and left.tobytes() == right.tobytes()
    return bool(left == right)
