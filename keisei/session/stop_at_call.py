"""What tells a body that can be told in no other way: its next call raises."""

from __future__ import annotations

import threading


class StopAtCall:
    """An error that the next call of each thread raises, once in each.

    Attributes:
        error: the error; ``None`` where nothing is raised.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._told: set[int] = set()

    def put(self, error: BaseException | None) -> None:
        """Raise an error from now on; ``None`` for nothing any more."""
        self.error = error

    def check(self) -> None:
        """Raise the error, where this thread was not told yet."""
        if self.error is not None and (thread := threading.get_ident()) not in self._told:
            self._told.add(thread)
            raise self.error
