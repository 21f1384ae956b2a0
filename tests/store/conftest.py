"""Registries to test with: SQLite always, and a real Postgres server where one is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.postgres import NoServer

POSTGRES = pytest.mark.postgres
URLS = ["sqlite", pytest.param("postgres", marks=POSTGRES)]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A Postgres server of the tests' own, as the URL of its databases."""
    try:
        with postgres.postgres_server("fsync=off", "max_connections=400") as server:
            yield server
    except NoServer as exc:
        pytest.skip(str(exc))


@pytest.fixture
def new_postgres(postgres_server: str, tmp_path: Path) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""
    numbers = count()

    def make() -> str:
        name = f"test_{os.getpid()}_{abs(hash(tmp_path)):x}_{next(numbers)}"
        return postgres.make_database(postgres_server, name)

    return make


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty registry."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    made: str = request.getfixturevalue("new_postgres")()
    return made
