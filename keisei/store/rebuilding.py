"""Make a registry's rows again from the directories, which are the truth."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from keisei.store import directories
from keisei.store.opening import Opened
from keisei.store.rows import RunRow

_BATCH = 200  # runs in one commit


@dataclass
class Rebuilt:
    """What a rebuild has found.

    Attributes:
        runs: how many runs there are.
        forgotten: how many rows had no directory any more.
        copies: directories of a run that has another one, which the registry lists: by directory.
    """

    runs: int = 0
    forgotten: int = 0
    copies: dict[str, str] = field(default_factory=dict)


def rebuild(registry: Opened, roots: Sequence[str]) -> Rebuilt:
    """Make the rows of some roots again.

    Args:
        registry: the registry.
        roots: the absolute paths of the directories under which runs live.

    Raises:
        OSError: a root cannot be read; nothing of it was changed.
    """
    began, done, owners = time.time(), Rebuilt(), dict[str, str]()
    for root in roots:
        batch: list[RunRow] = []
        for row in directories.rows(root):
            first = owners.setdefault(row.session_id or row.directory, row.directory)
            if first != row.directory:
                done.copies[row.directory] = first
                continue
            done.runs += 1
            batch.append(row)
            if len(batch) == _BATCH:
                registry.write(batch)
                batch = []
        if batch:
            registry.write(batch)
    done.forgotten = _forget(registry, roots, began)
    return done


def _forget(registry: Opened, roots: Sequence[str], began: float) -> int:
    """Forget the rows of these roots that were not written just now; return how many."""
    database = registry.database()
    import sqlalchemy as sa

    from keisei.store import tables
    from keisei.store.schema import runs

    with database.writing() as connection:
        statement = sa.select(runs.c.key, runs.c.directory).where(
            runs.c.root.in_(roots), runs.c.updated < began
        )
        left = [
            key
            for key, directory in connection.execute(statement)
            if not os.path.lexists(directory)
        ]
        tables.forget(connection, left)
    return len(left)
