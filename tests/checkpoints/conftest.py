"""A models directory to save into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei._io.directories import OpenDirectory
from tests.support.file_faults import fast_place


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A directory where an fsync costs nothing."""
    with fast_place(tmp_path) as place:
        yield place


@pytest.fixture
def models(fast: Path) -> Iterator[OpenDirectory]:
    """An empty models directory, held open."""
    path = fast / "models"
    path.mkdir(mode=0o700)
    with OpenDirectory(str(path)) as directory:
        yield directory
