"""Whether a run's directory is the copy of another one, which has the run's row in the registry."""

from __future__ import annotations

from keisei.run import find
from keisei.run.find import FoundRun
from keisei.store.opening import Opened


def original_of(opened: Opened, run: FoundRun) -> str | None:
    """Return the directory of which a run's is a copy; ``None`` where it is none, or was moved.

    Args:
        opened: the registry.
        run: the run.

    Raises:
        RegistryError: the database cannot be used.
    """
    if run.record is None:
        return None
    row = opened.known(run.record.session_id)
    if row is None or row.session_id != run.record.session_id or row.directory == run.directory:
        return None
    first = find.find_at(row.directory)
    if first is None or first.record is None or first.record.session_id != row.session_id:
        return None
    return row.directory
