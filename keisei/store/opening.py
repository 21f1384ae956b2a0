"""A registry that is opened when it is first asked for something; SQLAlchemy is imported then."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keisei.errors import MissingExtraError, RegistryError
from keisei.store.rows import RunRow

if TYPE_CHECKING:
    from keisei.run.lease import Holder
    from keisei.store.database import Database
    from keisei.store.lost import Lease

URL_VARIABLE = "KEISEI_REGISTRY_URL"


def url_of(given: str | None) -> str:
    """Return the URL of the registry: the one given, else that of `KEISEI_REGISTRY_URL`.

    Raises:
        RegistryError: there is neither.
    """
    url = given or os.environ.get(URL_VARIABLE)
    if not url:
        raise RegistryError(f"no registry is named: give its URL, or set {URL_VARIABLE}")
    return url


class Opened:
    """A registry's database, opened at its first use; thread-safe, and it blocks.

    Args:
        url: its URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._guard = threading.Lock()
        self._database: Database | None = None

    def close(self) -> None:
        """Close its connections."""
        with self._guard:
            database, self._database = self._database, None
        if database is not None:
            database.close()

    def database(self) -> Database:
        """Return the database.

        Raises:
            MissingExtraError: SQLAlchemy, or the driver, is not installed.
            RegistryError: it cannot be reached or used.
        """
        with self._guard:
            if self._database is None:
                try:
                    from keisei.store.database import Database
                except ImportError as exc:
                    extra = "pip install 'keisei[registry]'"
                    raise MissingExtraError(f"a registry needs {exc.name}: {extra}") from None
                self._database = Database(self._url)
            return self._database

    def find(self, query: str, order_by: str, limit: int | None, offset: int) -> list[RunRow]:
        """Return the runs that fit a query; see `keisei.store.reading.find`."""
        database = self.database()
        from keisei.store import reading

        with database.reading() as connection:
            return reading.find(connection, query, order_by, limit, offset)

    def statuses(self, query: str) -> Counter[str]:
        """Return how many runs fit a query, by their status."""
        database = self.database()
        from keisei.store import reading

        with database.reading() as connection:
            return reading.statuses(connection, query)

    def one(self, wanted: str) -> RunRow:
        """Return one run; see `keisei.store.reading.one`."""
        database = self.database()
        from keisei.store import reading

        with database.reading() as connection:
            return reading.one(connection, wanted)

    def known(self, wanted: str) -> RunRow | None:
        """Return one run; ``None`` where the registry does not know it."""
        database = self.database()
        from keisei.store import reading

        with database.reading() as connection:
            return reading.known(connection, wanted)

    def changed(self, query: str, seen: dict[str, tuple[float, str]]) -> list[RunRow]:
        """Return the runs that fit a query and have changed, or been lost, since the last call.

        Args:
            query: the query.
            seen: when each run had changed, and how it stood; it is updated.
        """
        database = self.database()
        from keisei.store import reading

        with database.reading() as connection:
            return reading.changed(connection, query, seen)

    def write(self, rows: Sequence[RunRow]) -> None:
        """Write runs as they are now."""
        database = self.database()
        from keisei.store import tables

        now = time.time()
        with database.writing() as connection:
            tables.write(connection, [tables.Entry(row, now) for row in rows], anew=True)

    def forget(self, directory: str) -> None:
        """Remove the row of the run in a directory."""
        database = self.database()
        from keisei.store import tables

        with database.writing() as connection:
            tables.forget_directory(connection, directory)

    def lease(self, session_id: str, attempt: int) -> Lease | None:
        """Return a run's lease; see `keisei.store.lost.lease_of`."""
        database = self.database()
        from keisei.store import lost

        with database.reading() as connection:
            return lost.lease_of(connection, session_id, attempt)

    def take_over(self, session_id: str, attempt: int) -> tuple[Holder, int] | None:
        """Acquire the lease of a run that is lost; see `keisei.store.lost.take_over`."""
        database = self.database()
        from keisei.store import lost

        with database.writing() as connection:
            return lost.take_over(connection, session_id, attempt)

    def release(self, session_id: str, owner: Holder, epoch: int) -> None:
        """Release a lease; see `keisei.store.leases.release`."""
        database = self.database()
        from keisei.store import leases

        with database.writing() as connection:
            leases.release(connection, session_id, owner, epoch)
