"""Reads the session file of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keisei import AsyncSessionManager, SessionManager


def record_of(session: AsyncSessionManager[Any] | SessionManager[Any]) -> dict[str, Any]:
    """Read a session's own record."""
    path = Path(session.run_artifact_dir, "session.json")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
