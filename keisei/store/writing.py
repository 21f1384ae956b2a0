"""Writes runs into a registry: what many threads hand over at the same time is one commit."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from keisei._io.forks import after_in_child
from keisei.errors import RegistryError
from keisei.store import tables
from keisei.store.database import Database
from keisei.store.tables import Entry

MOST = 500  # runs in one commit
_GATHER = 0.002  # seconds

_writers: dict[str, Writer] = {}
_lock = threading.Lock()
after_in_child(_writers.clear)


class Writer:
    """The one thread of a process that writes to a registry; thread-safe.

    Args:
        url: the registry's.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._database: Database | None = None
        self._waiting: dict[str, tuple[Entry, list[Future[None]]]] = {}
        self._at_work = False
        self._guard = threading.Lock()

    def write(self, entry: Entry) -> None:
        """Write a run, and wait until it is committed.

        Args:
            entry: the run.

        Raises:
            RegistryError: the database cannot be reached, or refuses it.
            MissingExtraError: its driver is not installed.
        """
        done: Future[None] = Future()
        with self._guard:
            _, waiting = self._waiting.pop(entry.key, (entry, []))
            self._waiting[entry.key] = entry, [*waiting, done]
            starts, self._at_work = not self._at_work, True
        if starts:
            threading.Thread(target=self._work, name="keisei-registry", daemon=True).start()
        done.result()

    def _work(self) -> None:
        batch: list[tuple[Entry, list[Future[None]]]] = []
        while True:
            if len(batch) > 1:  # those that were answered at one time come again at one time
                time.sleep(_GATHER)
            with self._guard:
                keys = list(self._waiting)[:MOST]
                batch = [self._waiting.pop(key) for key in keys]
                if not batch:
                    self._at_work = False
                    return
            self._commit(batch)

    def _commit(self, batch: list[tuple[Entry, list[Future[None]]]]) -> None:
        error: BaseException | None = None
        try:
            if self._database is None:
                self._database = Database(self._url)
            with self._database.writing() as connection:
                tables.write(connection, [entry for entry, _ in batch])
        except BaseException as exc:  # noqa: BLE001 - whoever waits gets it
            error = exc
        if error is not None and len(batch) > 1 and not isinstance(error, RegistryError):
            for one in batch:  # one odd run is no reason to refuse the others
                self._commit([one])
            return
        for _, waiting in batch:
            for done in waiting:
                done.set_result(None) if error is None else done.set_exception(error)


def writer_for(url: str) -> Writer:
    """Return the process's writer of a registry.

    Args:
        url: the registry's.
    """
    with _lock:
        return _writers.setdefault(url, Writer(url))
