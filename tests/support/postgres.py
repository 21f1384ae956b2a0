"""A real Postgres server of one's own, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OTHERS = ("postgres", "nobody")  # the first that there is: a server refuses to run as root


class NoServer(Exception):
    """There can be no server here; the message says why."""


@contextmanager
def postgres_server(*settings: str) -> Iterator[str]:
    """Run a server, and yield the URL of a database of it, with `{name}` for the database's name.

    Args:
        settings: more of its settings, as `fsync=off`.

    Raises:
        NoServer: there can be none here.
    """
    if os.name == "nt" or (initdb := _program("initdb")) is None:
        raise NoServer("no Postgres server is installed (initdb)")
    pg_ctl = _program("pg_ctl")
    as_user: list[str] = []
    with tempfile.TemporaryDirectory(prefix="keisei-pg-", dir="/tmp") as directory:
        if os.geteuid() == 0:
            if shutil.which("runuser") is None:
                raise NoServer("Postgres does not run as root, and there is no runuser")
            import pwd

            known = {user.pw_name for user in pwd.getpwall()}
            other = next((name for name in _OTHERS if name in known), None)
            if other is None:
                raise NoServer("Postgres does not run as root, and there is no other user")
            as_user = ["runuser", "-u", other, "--"]
            shutil.chown(directory, other)
        data = f"{directory}/data"
        own = ("listen_addresses=''", f"unix_socket_directories={directory}")
        options = " ".join(f"-c {setting}" for setting in (*own, *settings))
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


@contextmanager
def stopped(url: str) -> Iterator[None]:
    """Stop a server with all its processes for a `with` block: it accepts, and answers nothing.

    Args:
        url: of one of its databases.
    """
    directory = Path(url.partition("?host=")[2])
    server = (directory / "data" / "postmaster.pid").read_text().split()[0]
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", server], capture_output=True, text=True)
    processes = [int(server), *map(int, listed.stdout.split())]
    try:
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def make_database(server: str, name: str) -> str:
    """Make an empty database, and return its URL.

    Args:
        server: what `postgres_server` yields.
        name: the database's name.
    """
    import psycopg

    with psycopg.connect(server.format(name="postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload,unused-ignore]
    return server.format(name=name)


def _program(name: str) -> str | None:
    """Return the path of a server's program, of the newest version that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(found[0]) if found else shutil.which(name)
