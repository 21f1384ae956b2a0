"""What each part of a session's own measurements does, and when."""

from __future__ import annotations

from typing import Any


class UsagePart:
    """One thing that is measured of a session; each hook does nothing where it is not overridden.

    What fails in a hook is logged, and the training goes on.
    """

    def claimed(self) -> None:
        """Begin what needs no loop; called on the thread that has claimed the run."""

    def begin(self) -> None:
        """Begin what belongs to the loop; called in it, when the session has been entered."""

    def leave_loop(self) -> None:
        """End what `begin` has begun; called in the loop, when the session begins to end."""

    def tick(self) -> None:
        """Do what is due by now; called every second on a thread, and must be quick."""

    def record_end(self) -> None:
        """Log what is to be logged last; called on any thread, while the journal is open."""

    def summary(self) -> dict[str, Any]:
        """Return what is known by now as plain data, by its key in the session's summary."""
        return {}
