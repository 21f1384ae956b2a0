"""Checkpoints of a run that a test makes, without a session."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.content import Facts
from keisei.checkpoints.packing import pack


def save(run: Path, step: int | None, *, metrics: Mapping[str, float] = {}) -> Path:
    """Commit a checkpoint of a small state in a run's directory, and return its path.

    Args:
        run: the run's directory, with a session file.
        step: the training step; ``None`` for the final model.
        metrics: what it is saved with.
    """
    session_id = json.loads((run / "session.json").read_text(encoding="utf-8"))["session_id"]
    state: dict[str, Any] = {"step": step, "text": "x" * 100}
    with OpenDirectory(str(run / "models")) as models:
        facts = Facts(session_id, step, 1, None, metrics)
        return Path(commit(models, pack(state, copy=True), facts).path)


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
