"""Registries to test with: SQLite always, and a real Postgres server where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

POSTGRES = pytest.mark.postgres
URLS = ["sqlite", pytest.param("postgres", marks=POSTGRES)]
_OTHERS = ("postgres", "nobody")  # the first that there is: a server refuses to run as root


def _program(name: str) -> str | None:
    """Return the path of a server's program, of the newest version that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(found[0]) if found else shutil.which(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A Postgres server of the tests' own, as the URL of its first database without a path."""
    if os.name == "nt" or (initdb := _program("initdb")) is None:
        pytest.skip("no Postgres server is installed (initdb)")
    pg_ctl = _program("pg_ctl")
    as_user: list[str] = []
    with tempfile.TemporaryDirectory(prefix="keisei-pg-", dir="/tmp") as directory:
        if os.geteuid() == 0:
            if shutil.which("runuser") is None:
                pytest.skip("Postgres does not run as root, and there is no runuser")
            import pwd

            known = {user.pw_name for user in pwd.getpwall()}
            other = next((name for name in _OTHERS if name in known), None)
            if other is None:
                pytest.skip("Postgres does not run as root, and there is no other user")
            as_user = ["runuser", "-u", other, "--"]
            shutil.chown(directory, other)
        data = f"{directory}/data"
        options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
        commands = [
            [initdb, "-D", data, "-U", "keisei", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"],
            [str(pg_ctl), "-D", data, "-w", "-l", f"{directory}/log", "-o", options, "start"],
        ]
        for command in commands:
            subprocess.run([*as_user, *command], check=True, capture_output=True, cwd=directory)
        try:
            yield f"postgresql://keisei@/{{name}}?host={directory}"
        finally:
            stop = [*as_user, str(pg_ctl), "-D", data, "-m", "immediate", "stop"]
            subprocess.run(stop, check=True, capture_output=True, cwd=directory)


@pytest.fixture
def new_postgres(postgres_server: str, tmp_path: Path) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""
    import psycopg

    def make() -> str:
        name = f"test_{os.getpid()}_{abs(hash(tmp_path)):x}_{next(numbers)}"
        url = postgres_server.format(name="postgres")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return postgres_server.format(name=name)

    numbers = iter(range(1_000_000))
    return make


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty registry."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registry.db"
    made: str = request.getfixturevalue("new_postgres")()
    return made
