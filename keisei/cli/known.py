"""What the registry knows of the runs that a command works on, and what it is told of them.

The directories are the truth: a registry that cannot be used is one warning, and the command goes
on without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import typer

from keisei._text import one_line
from keisei.errors import KeiseiError, quoted
from keisei.redaction import clean
from keisei.run import find
from keisei.run.find import FoundRun
from keisei.store.copies import original_of
from keisei.store.directories import row_of
from keisei.store.opening import URL_VARIABLE, Opened

if TYPE_CHECKING:
    from keisei.store.lost import Lease

T = TypeVar("T")


class Known:
    """The registry beside the directories, where one is named.

    Args:
        command: the command's name, for the warning.
        url: the option `--registry`; without it `KEISEI_REGISTRY_URL` counts.
    """

    def __init__(self, command: str, url: str | None) -> None:
        named = url or os.environ.get(URL_VARIABLE)
        self._command = command
        self._opened = Opened(named) if named else None

    def find(self, wanted: str, root: str | None) -> FoundRun:
        """Return a run: one under the root, or at that path, comes before the registry's.

        Args:
            wanted: its name or path; the registry knows it by its id, too.
            root: the option `--root`; where it is given, no registry is asked.

        Raises:
            FileNotFoundError: it is nowhere, or its directory cannot be seen from here.
            OSError: it cannot be read.
        """
        try:
            return find.find_run(find.root_of_runs(root), wanted)
        except FileNotFoundError:
            row = None if root else self._ask(lambda opened: opened.known(wanted))
            if row is None:
                raise
        if (found := find.find_at(row.directory)) is None:
            raise FileNotFoundError(
                f"run {quoted(row.name)} is in {quoted(row.directory, 300)}, which cannot be seen "
                "from here: call this where it can"
            )
        return found

    def lease(self, run: FoundRun) -> Lease | None:
        """Return the lease of a run whose owner may live; ``None`` where none is known."""
        record = run.record
        if record is None or run.live_owner is None:
            return None
        return self._ask(lambda opened: opened.lease(record.session_id, record.attempt))

    @contextmanager
    def taken(self, run: FoundRun) -> Iterator[bool]:
        """Hold the lease of a run that is lost; the block gets whether it does.

        Args:
            run: the run.
        """
        record, opened = run.record, self._opened
        assert record is not None
        taken = self._ask(lambda opened: opened.take_over(record.session_id, record.attempt))
        try:
            yield taken is not None
        finally:
            if taken is not None and opened is not None:
                self._ask(lambda opened: opened.release(record.session_id, *taken))

    def update(self, directory: str) -> None:
        """Write a run's row as its directory is now: none where that is gone, or is a copy.

        Args:
            directory: the directory's absolute path.
        """
        self._ask(lambda opened: _update(opened, directory))

    def _ask(self, ask: Callable[[Opened], T]) -> T | None:
        if self._opened is None:
            return None
        try:
            return ask(self._opened)
        except KeiseiError as exc:
            self._opened = None
            text = f"keisei {self._command}: goes on without the registry: {exc}"
            typer.echo(one_line(clean(text)), err=True)
            return None


def _update(opened: Opened, directory: str) -> None:
    found = find.find_at(directory)
    if found is None:
        opened.forget(directory)
    elif found.record is not None and original_of(opened, found) is None:
        opened.write([row_of(found)])
