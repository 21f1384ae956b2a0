"""Lowest and newest releases of what keisei needs beside W&B's SDK: tests that would feel it."""

from __future__ import annotations

import pytest

from tests.support.lowest_versions import PYPROJECT, lowest_versions
from tests.support.releases import TryRelease

pytestmark = [pytest.mark.versions, pytest.mark.xdist_group("versions")]
LOWEST = lowest_versions(PYPROJECT.read_text(encoding="utf-8"))
ROWS = {
    "trackio": {"tracker": ["tests/trackers/test_trackio.py"]},
    "mlflow": {
        "tracker": ["tests/trackers/test_mlflow.py"],
        "launched": ["tests/trackers/test_mlflow_launched.py"],
    },
    "anyio": {
        "session": [
            f"tests/session/test_{name}.py"
            for name in ("lifecycle", "cancellation", "failures", "members", "metrics", "signals")
        ],
        "io": ["tests/io"],
    },
    "pydantic": {"config": ["tests/config"], "public names": ["tests/test_public_names.py"]},
}


@pytest.mark.parametrize("bound", ["lowest", "newest"])
@pytest.mark.parametrize(("library", "row"), [(name, row) for name in ROWS for row in ROWS[name]])
def test_what_keisei_needs_holds_at_its_bounds(
    try_release: TryRelease, library: str, row: str, bound: str
) -> None:
    """Each row of each release; the table is printed with `-s`."""
    requirement = f"{library}{'==' if bound == 'lowest' else '>='}{LOWEST[library]}"
    found = try_release(requirement, ROWS[library])[row]
    assert found, "no test of the row was run"
    assert not any(found), "\n".join(found)
