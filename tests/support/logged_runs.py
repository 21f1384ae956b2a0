"""Runs whose rows a test gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keisei import SessionManager
from tests.conftest import MakeConfig

Row = tuple[Mapping[str, Any], int | None]
Log = Callable[..., Path]


def log_with(make_config: MakeConfig) -> Log:
    """Return a function that makes a run of one attempt per list of rows: its directory."""

    def log(name: str, *attempts: list[Row]) -> Path:
        for rows in attempts:
            with SessionManager(make_config(), run_name=name) as session:
                for values, step in rows:
                    session.log_metrics(values, step)
        return Path(session.run_artifact_dir)

    return log


def line(steps: range, slope: float = 1.0) -> list[Row]:
    """Return rows of one metric that grows."""
    return [({"loss": slope * step}, step) for step in steps]
