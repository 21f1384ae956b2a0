"""Where a list of runs comes from: the registry, where one is named, or the directories."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Protocol

from keisei.run.find import find_run, root_of_runs
from keisei.store import columns, directories
from keisei.store.matching import matches
from keisei.store.opening import URL_VARIABLE, Opened
from keisei.store.query import parse
from keisei.store.rows import RunRow


class Source(Protocol):
    """Where runs are listed from.

    Attributes:
        kind: `root` or `registry`.
        shown: which one, as people may see it.
    """

    kind: str
    shown: str

    def find(self, query: str, order_by: str, limit: int) -> tuple[list[RunRow], Counter[str]]:
        """Return the first runs that fit a query, and how many fit it by their status.

        Args:
            query: the query.
            order_by: the column to sort by.
            limit: the most runs; 0 for all.
        """

    def one(self, wanted: str) -> RunRow:
        """Return one run by its name or path; the registry knows it by its id, too."""


class Directories(Source):
    """The runs under a root.

    Args:
        root: its absolute path.
    """

    kind = "root"

    def __init__(self, root: str) -> None:
        self.shown = root

    def find(self, query: str, order_by: str, limit: int) -> tuple[list[RunRow], Counter[str]]:
        """Return the first runs that fit a query, and how many fit it by their status."""
        node = parse(query, time.time())
        columns.check_column(order_by.removeprefix("-"))
        fit = [row for row in directories.rows(self.shown) if matches(node, row)]
        counts = Counter(row.status for row in fit)
        return columns.ordered(fit, order_by)[: limit or None], counts

    def one(self, wanted: str) -> RunRow:
        """Return one run by its name or path."""
        return directories.row_of(find_run(self.shown, wanted))


class InRegistry(Source):
    """The runs that a registry knows.

    Args:
        url: its URL.
    """

    kind = "registry"

    def __init__(self, url: str) -> None:
        self._opened = Opened(url)
        self.shown = self._opened.database().shown

    def find(self, query: str, order_by: str, limit: int) -> tuple[list[RunRow], Counter[str]]:
        """Return the first runs that fit a query, and how many fit it by their status."""
        found = self._opened.find(query, order_by, limit or None, 0)
        return found, self._opened.statuses(query)

    def one(self, wanted: str) -> RunRow:
        """Return one run by its name, its session id or its path."""
        path = os.path.abspath(wanted)
        return self._opened.one(path if os.path.isdir(path) else wanted)


def source_of(root: str | None, url: str | None) -> Source:
    """Return where a command's runs come from.

    Args:
        root: the option `--root`, which goes before any registry.
        url: the option `--registry`; without it `KEISEI_REGISTRY_URL` counts.

    Raises:
        RegistryError: the registry cannot be used.
    """
    named = url or (None if root else os.environ.get(URL_VARIABLE))
    return InRegistry(named) if named else Directories(root_of_runs(root))
