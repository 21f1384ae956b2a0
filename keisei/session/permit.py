"""Who comes first: work on a thread that takes effect, or a caller who gives it up."""

from __future__ import annotations

import threading

from keisei.errors import CheckpointError


class Permit:
    """Whether work on a thread may still take effect: who comes first decides it, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self.given_up = False

    def give_up(self) -> bool:
        """Withdraw it; return whether the work had taken it before, and so takes effect."""
        with self._lock:
            self.given_up = not self._taken
            return self._taken

    def take(self) -> None:
        """Take it: from now on the work takes effect.

        Raises:
            CheckpointError: it was given up before.
        """
        with self._lock:
            if self.given_up:
                raise _given_up()
            self._taken = True

    def check(self) -> None:
        """Check that it was not given up.

        Raises:
            CheckpointError: it was.
        """
        if self.given_up:
            raise _given_up()


def _given_up() -> CheckpointError:
    return CheckpointError("given up: its caller was cancelled, or the session has ended")
