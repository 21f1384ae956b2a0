"""The registry's database: what opens, what is migrated, and what is refused with a reason."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from keisei.errors import RegistryError
from keisei.store import schema
from keisei.store.database import Database
from keisei.store.file_systems import network_file_system

SECRET = "s3cr3t-pass-w0rd"


def test_a_registry_is_made_once_and_keeps_its_id(url: str) -> None:
    """Opened again, and by many at once, it is the same registry with one row of its schema."""
    with ThreadPoolExecutor(8) as pool:
        databases = list(pool.map(Database, [url] * 8))
    assert len({database.registry for database in databases}) == 1
    with databases[0].reading() as connection:
        row = connection.execute(sa.select(schema.schema)).one()
    assert (row.version, row.readable_by) == (schema.VERSION, schema.READABLE_BY[schema.VERSION])
    for database in databases:
        database.close()


@pytest.mark.requirement("REG-7")
def test_a_newer_schema_is_read_or_refused(url: str) -> None:
    """A schema that this version can read is read; else the error says to upgrade."""
    with Database(url) as database, database.writing() as connection:
        connection.execute(sa.update(schema.schema).values(version=99, readable_by=1))
    Database(url).close()
    with Database(url) as database, database.writing() as connection:
        assert connection.execute(sa.select(schema.schema.c.version)).scalar() == 99
        connection.execute(sa.update(schema.schema).values(readable_by=98))
    with pytest.raises(RegistryError, match=r"newer keisei \(schema 99\).*upgrade"):
        Database(url)


def test_a_damaged_schema_is_said(url: str) -> None:
    """Tables without their version are an error that names the way out."""
    with Database(url) as database, database.writing() as connection:
        connection.execute(sa.delete(schema.schema))
    with pytest.raises(RegistryError, match=r"does not say its version.*rebuild"):
        Database(url)
    with pytest.raises(RegistryError), Database(url):
        pass


@pytest.mark.parametrize("table", ["keisei_leases", "keisei_metrics"])
def test_a_schema_without_a_table_is_said(url: str, table: str) -> None:
    """One that is migrated by half is an error that names what is missing, and the way out."""
    with Database(url) as database, database.writing() as connection:
        connection.execute(sa.text(f"DROP TABLE {table}"))
    with pytest.raises(RegistryError, match=rf"no table {table}.*rebuild"):
        Database(url)


def test_a_migration_that_fails_changes_nothing(url: str) -> None:
    """An earlier registry with what the next version would make stays as it is, which is said."""
    with Database(url) as database, database.writing() as connection:
        connection.execute(sa.update(schema.schema).values(version=1))
    with pytest.raises(RegistryError, match=r"brought to schema 2 .*already exists.*rebuild"):
        Database(url)
    with pytest.raises(RegistryError, match="schema 2"):
        Database(url)


def test_another_programs_database_is_left_alone(url: str) -> None:
    """A database with tables of another program gets none of keisei's."""
    other = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with other.begin() as connection:
        connection.execute(sa.text("CREATE TABLE experiments (id INTEGER)"))
    with pytest.raises(RegistryError, match="another program's.*'experiments'"):
        Database(url)
    assert sa.inspect(other).get_table_names() == ["experiments"]
    other.dispose()


@pytest.mark.postgres
def test_what_a_stopped_process_has_begun_keeps_nobody_out(new_postgres: Callable[[], str]) -> None:
    """The server undoes a transaction whose process says nothing any more, and frees its locks."""
    with Database(new_postgres()) as database, database.reading() as connection:
        shown = connection.execute(sa.text("SHOW idle_in_transaction_session_timeout"))
        assert shown.scalar() == "10s"


def test_an_error_undoes_the_transaction(url: str) -> None:
    """What a block has written is there as a whole, or not at all."""
    with Database(url) as database:
        with pytest.raises(ZeroDivisionError), database.writing() as connection:
            connection.execute(sa.update(schema.schema).values(version=50))
            _ = 1 / 0
        with pytest.raises(RegistryError, match="no_such"), database.writing() as connection:
            connection.execute(sa.update(schema.schema).values(version=50))
            connection.execute(sa.text("SELECT * FROM no_such_table"))
        with database.reading() as connection:
            assert connection.execute(sa.select(schema.schema.c.version)).scalar() == schema.VERSION


def test_a_reader_waits_for_no_writer(url: str) -> None:
    """While one writes, others read what was there before."""
    with Database(url) as database:
        written, seen = threading.Event(), threading.Event()

        def read() -> int | None:
            assert written.wait(30)
            with database.reading() as connection:
                found = connection.execute(sa.select(schema.schema.c.version)).scalar()
            seen.set()
            return found

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read)
            with database.writing() as connection:
                connection.execute(sa.update(schema.schema).values(version=50))
                written.set()
                assert seen.wait(30)
            assert reading.result() == schema.VERSION


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("", "names no database"),
        ("registry.db", "names no database"),
        ("mysql://h/d", "cannot be in 'mysql'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        (f"postgresql://me:{SECRET}@127.0.0.1:1/d", "refused|failed"),
        (f"postgresql://me:{SECRET}@127.0.0.1:port/d", "names no database"),
    ],
)
def test_what_is_no_registry_is_one_clear_error(bad: str, says: str) -> None:
    """A wrong URL or an unreachable server is one error, in one line, without the password."""
    with pytest.raises(RegistryError, match=says) as caught:
        Database(bad)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """A database with other tables, and a file that is no database, are refused and unchanged."""
    other = tmp_path / "mlflow.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE experiments (id INTEGER)")
    connection.close()
    text = tmp_path / "notes.txt"
    text.write_text("no database " * 200)
    for path, says in ((other, "another program's.*'experiments'"), (text, "not a database")):
        before = path.read_bytes()
        with pytest.raises(RegistryError, match=says):
            Database(f"sqlite:///{path}")
        assert path.read_bytes() == before


def test_a_process_may_open_a_file_twice(tmp_path: Path) -> None:
    """What it writes then is there for others, although they have left the file meanwhile."""
    path = tmp_path / "registry.db"
    look = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "print(connection.execute('SELECT version FROM keisei_schema').fetchone()[0])\n"
        "connection.close()\n"
    )

    def version() -> str:
        command = [sys.executable, "-c", look, str(path)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    with Database(f"sqlite:///{path}") as first, Database(f"sqlite:///{path}"):
        assert version() == str(schema.VERSION)
        with first.writing() as connection:
            connection.execute(sa.update(schema.schema).values(version=50))
        assert version() == "50"


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_the_file_of_a_registry_is_its_owners_alone(tmp_path: Path) -> None:
    """A registry holds configs and notes: nobody else may read its file."""
    Database(f"sqlite:///{tmp_path}/deep/registry.db").close()
    assert (tmp_path / "deep" / "registry.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "lustre")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs")),
    ],
)
def test_network_file_systems_are_known(tmp_path: Path, kind: str, network: bool) -> None:
    """The kind of the mount that is nearest to a path decides."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"2 1 0:50 / /mnt/with\\040blank rw,relatime shared:1 - {kind} host:/x rw\n"
        "3 2 0:51 / /mnt/with\\040blank/local rw - ext4 /dev/sdb1 rw\n"
    )
    found = network_file_system("/mnt/with blank/a/b.db", str(mounts))
    assert found == (kind if network else None)
    assert network_file_system("/mnt/with blank/local/b.db", str(mounts)) is None
    assert network_file_system("/mnt/with blanket/b.db", str(mounts)) is None
    assert network_file_system("/a", str(tmp_path / "absent")) is None


def test_sqlite_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's locks do not hold there: the error says what to do."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 0:50 / / rw - nfs4 host:/x rw\n")
    monkeypatch.setattr("keisei.store.file_systems._MOUNTS", str(mounts))
    monkeypatch.setattr(
        "keisei.store.database.network_file_system",
        lambda path: network_file_system(path, str(mounts)),
    )
    with pytest.raises(RegistryError, match=re.escape("network file system (nfs4)")):
        Database(f"sqlite:///{tmp_path}/registry.db")
