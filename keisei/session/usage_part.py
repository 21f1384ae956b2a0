"""What each part of a session's own measurements does, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keisei._log import logger
from keisei.errors import describe


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


def guarded(hook: Callable[[], None], run_name: str) -> None:
    """Call a hook of a part; what fails in it is logged.

    Args:
        hook: the hook.
        run_name: whose measurement it is.
    """
    try:
        hook()
    except Exception as exc:  # noqa: BLE001 - a measurement is no reason not to train
        text = "a measurement of run %s has failed, and the training goes on: %s"
        logger.warning(text, run_name, describe(exc))
