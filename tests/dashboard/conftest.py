"""A root with a few runs, and its page served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeConfig
from tests.support.logged_runs import Log, line, log_with
from tests.support.page import Served, served


@pytest.fixture
def log(make_config: MakeConfig) -> Log:
    """A function that makes a run."""
    return log_with(make_config)


@pytest.fixture
def root(tmp_path: Path, log: Log) -> Path:
    """Two runs of a hundred rows."""
    log("first", line(range(100)))
    log("second", line(range(100), 2.0))
    return tmp_path / "runs"


@pytest.fixture
def page(root: Path) -> Iterator[Served]:
    """The page of these runs."""
    with served(root) as server:
        yield server
