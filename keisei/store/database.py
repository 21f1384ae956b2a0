"""A registry's database: opened by its URL, migrated, and asked for transactions. It blocks.

Everything here is synchronous and belongs on a thread: drivers for asyncio alone could not serve
trio. SQLite gets a write-ahead log, so that readers wait for nobody, and takes its lock at the
beginning of a transaction that writes, so that no transaction fails halfway as "locked".
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from keisei.errors import MissingExtraError, RegistryError, quoted
from keisei.redaction import clean
from keisei.run.names import new_session_id
from keisei.store import clock, schema
from keisei.store.file_systems import network_file_system

BUSY_TIMEOUT = 30.0  # seconds that SQLite waits for another writer
CONNECT_TIMEOUT = 10  # seconds, for a server
_SILENCE = 30  # seconds, after which a server that the network does not reach is given up
_IDLE = 10  # seconds, after which a server gives up a transaction whose process is stopped
_LOCK = 0x6B656973  # the number of the advisory lock under which Postgres is migrated
_making = threading.Lock()
_ANEW = "Name another database, and fill it with `keisei registry rebuild`"
_WAYS = "write sqlite:///PATH, or postgresql://HOST/DATABASE"


class Database:
    """A registry's database.

    Args:
        url: `sqlite:///PATH` or `postgresql://...`.

    Attributes:
        shown: the URL without its password.

    Raises:
        MissingExtraError: its driver is not installed.
        RegistryError: it is no such URL, cannot be reached, is another program's, or newer than
            this keisei can read.
    """

    def __init__(self, url: str) -> None:
        parsed = _parsed(url)
        self.shown = clean(parsed.set(drivername=parsed.get_backend_name()).render_as_string())
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._engine = _engine(parsed, self.shown)
        try:
            self.registry = self._migrated()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads.

        Raises:
            RegistryError: the database cannot be reached, or refuses.
        """
        with self._errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes: committed at the block's end, and undone by an error.

        Raises:
            RegistryError: the database cannot be reached, or refuses.
        """
        with self._errors(), self._engine.connect() as connection:
            connection.execution_options(keisei_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as exc:
            raise RegistryError(f"the registry {self.shown}: {_reason(exc)}") from None

    def _migrated(self) -> str:
        """Bring the schema up to date, and return the registry's id."""
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            version, readable_by, registry = self._version(connection)
            if readable_by > schema.VERSION:
                raise RegistryError(
                    f"the registry {self.shown} was made by a newer keisei (schema {version}), and "
                    f"this one reads schemas up to {schema.VERSION}: upgrade keisei"
                )
            for number in range(version + 1, schema.VERSION + 1):
                self._migrate(connection, number)
            if version < schema.VERSION:
                registry = registry or new_session_id()
                connection.execute(sa.delete(schema.schema))
                connection.execute(
                    sa.insert(schema.schema).values(
                        id=1,
                        version=schema.VERSION,
                        readable_by=schema.READABLE_BY[schema.VERSION],
                        registry=registry,
                    )
                )
            return registry

    def _migrate(self, connection: Connection, number: int) -> None:
        try:
            for statement in schema.MIGRATIONS[number]:
                connection.execute(statement)
        except DBAPIError as exc:
            raise RegistryError(
                f"the registry {self.shown} cannot be brought to schema {number} ({_reason(exc)}), "
                f"and is as it was. {_ANEW}"
            ) from None

    def _version(self, connection: Connection) -> tuple[int, int, str]:
        """Return the schema's version (0 for none), who can read it, and the registry's id."""
        tables = set(sa.inspect(connection).get_table_names())
        ours = {name for name in tables if name.startswith("keisei_")}
        if schema.schema.name not in tables:
            if ours:
                raise RegistryError(
                    f"the registry {self.shown} is damaged: it has tables of keisei's, and not the "
                    f"one that says their version. {_ANEW}"
                )
            if tables:
                raise _of_another_program(self.shown, min(tables))
            return 0, 0, ""
        row = connection.execute(
            sa.select(
                schema.schema.c.version, schema.schema.c.readable_by, schema.schema.c.registry
            )
        ).first()
        if row is None:
            raise RegistryError(
                f"the registry {self.shown} is damaged: it does not say its version. {_ANEW}"
            )
        if row.version == schema.VERSION and (missing := {*schema.metadata.tables} - tables):
            raise RegistryError(
                f"the registry {self.shown} is damaged: it has no table {min(missing)}. {_ANEW}"
            )
        return row.version, row.readable_by, row.registry


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError, NoSuchModuleError):
        raise RegistryError(f"{quoted(url)} names no database: {_WAYS}") from None
    if backend not in ("sqlite", "postgresql"):
        raise RegistryError(f"a registry cannot be in {quoted(backend)}: {_WAYS}")
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if not parsed.database or parsed.database == ":memory:":
        raise RegistryError("a registry is shared by processes, and needs a file: sqlite:///PATH")
    path = os.path.abspath(os.path.expanduser(parsed.database))
    return parsed.set(drivername="sqlite", database=path)


def _engine(url: URL, shown: str) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        path = str(url.database)
        if system := network_file_system(path):
            raise RegistryError(
                f"{quoted(path, 300)} is on a network file system ({system}), where SQLite's locks "
                "do not hold: name a local file, or a Postgres server"
            )
        _check_file(path, shown)
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        options: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "application_name": "keisei",
            "tcp_user_timeout": _SILENCE * 1000,
            "keepalives_idle": _SILENCE // 3,
            "keepalives_interval": _SILENCE // 6,
            "keepalives_count": 4,
        }
        engine = sa.create_engine(url, connect_args=options, pool_pre_ping=True)
        sa.event.listen(engine, "connect", _prepare_postgres)
        return engine
    except ImportError as exc:
        raise MissingExtraError(
            f"a registry in Postgres needs {exc.name}: pip install 'keisei[postgres]'"
        ) from None


def _check_file(path: str, shown: str) -> None:
    """Make a registry's file, for its owner alone; leave one of another program as it is."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        _make_file(path)
        if not os.path.getsize(path):
            return
        # Before anything is set: a write-ahead log would stay set in the other program's file.
        with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)) as connection:
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            tables = {name for (name,) in connection.execute(query)}
    except OSError as exc:
        raise RegistryError(f"the registry {shown}: {exc.strerror or exc}") from None
    except sqlite3.Error as exc:
        raise RegistryError(f"the registry {shown}: {exc}") from None
    if tables and not any(name.startswith("keisei_") for name in tables):
        raise _of_another_program(shown, min(tables))


def _of_another_program(shown: str, table: str) -> RegistryError:
    return RegistryError(
        f"{shown} is another program's database (it has a table {quoted(table)}): name one of its "
        "own for the registry"
    )


def _make_file(path: str) -> None:
    """Make a registry's file; one that is there is opened by SQLite alone.

    Whoever closes a descriptor of it loses all locks that SQLite holds in this process, and the
    next process that leaves the registry takes its log away from under the others.
    """
    with _making, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # `_begin_sqlite` says how a transaction begins
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}").close()
    clock.prepare(connection)


def _prepare_postgres(connection: Any, _: object) -> None:
    """Make the server undo what a stopped process has begun: its locks would keep others out."""
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE}s'")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("keisei_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _reason(exc: SQLAlchemyError) -> str:
    """Return what the driver says, in one line, without statement, parameters and secrets."""
    text = str(exc.orig) if isinstance(exc, DBAPIError) else str(exc)
    return clean(" ".join(text.split()))[:500]
