"""How long to wait between retries: each time twice as long, up to a limit."""

from __future__ import annotations


class Backoff:
    """The pauses between the retries of one thing; not thread-safe.

    Args:
        first: the first pause, in seconds.
        longest: the longest one.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._next = first

    def next(self) -> float:
        """Return how long to wait before the next retry, and double the pause after it."""
        pause = self._next
        self._next = min(2 * pause, self._longest)
        return pause

    def reset(self) -> None:
        """Begin with the first pause again, after a success."""
        self._next = self._first
