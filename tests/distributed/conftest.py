"""What the tests under real launchers share: where each is installed, and one cluster of SLURM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import slurm as clusters


@pytest.fixture(scope="session")
def slurm() -> Iterator[clusters.Slurm]:
    """A cluster of two nodes, for as long as the tests run."""
    reason = clusters.missing()
    if reason is not None:
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="keisei-slurm-", dir="/tmp") as directory,
        clusters.cluster(Path(directory), nodes=2) as cluster,
    ):
        yield cluster
