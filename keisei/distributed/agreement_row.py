"""The row of a registry in which rank 0 publishes its run, for ranks that do not share a root."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import NamedTuple

from keisei._io.process import host_name
from keisei._log import logger
from keisei.distributed.agreement_file import Agreement
from keisei.errors import HandleError, RunNotSeenError, describe, quoted
from keisei.store.launches import FoundLaunch, LaunchRow

_FIRST = 0.5  # seconds that the file is looked for alone
_AGAIN = 0.3  # seconds between two questions; the registry's thread lives on for so long
_LAST_WORD = 2.0  # seconds that rank 0 waits to say that it has no run


class FoundRow(NamedTuple):
    """What a registry knows of a launch.

    Attributes:
        agreement: what rank 0 has published.
        is_new: whether that was a moment ago.
        is_held: whether the lease of its run is held.
    """

    agreement: Agreement
    is_new: bool
    is_held: bool


class AgreementRow:
    """A launch's row in a registry, which is not waited for where it is away.

    Args:
        url: the registry's.
        name: the name of the launch's file.
    """

    def __init__(self, url: str, name: str) -> None:
        self._row = LaunchRow(url, name)
        self._asked: Future[FoundLaunch | None] | None = None
        self._next = time.monotonic() + _FIRST

    def take(self, agreement: Agreement, gone: Agreement | None) -> Agreement | None:
        """Take the row as rank 0; waits shortly.

        Args:
            agreement: what rank 0 publishes.
            gone: what one that has ended has left in the launch's file.

        Returns:
            What another rank 0 has published that is at work; ``None`` where there is none, or the
            registry is away.
        """
        owner = None if gone is None else gone.owner
        text = self._row.take(agreement.owner, agreement.text(), owner)
        return None if text is None else Agreement.parsed(text)

    def publish(self, agreement: Agreement) -> None:
        """Write what rank 0 has become; the last word is waited for, shortly.

        Args:
            agreement: what it publishes.
        """
        done = self._row.publish(agreement.owner, agreement.text(), agreement.session_id)
        if agreement.problem is not None:
            try:
                done.result(_LAST_WORD)
            except Exception as exc:  # noqa: BLE001 - the file says the same
                logger.debug("the registry does not learn of it: %s", describe(exc))

    def look(self) -> FoundRow | None:
        """Return what the registry has answered since the last look; asks again, never waits."""
        now, found = time.monotonic(), None
        if self._asked is not None and self._asked.done():
            if (problem := self._asked.exception()) is not None:
                logger.debug("the registry does not answer: %s", describe(problem))
            else:
                found = self._asked.result()
            self._asked, self._next = None, now + _AGAIN
        if self._asked is None and now >= self._next:
            self._asked = self._row.find()
        agreement = None if found is None else Agreement.parsed(found.agreement)
        if found is None or agreement is None:
            return None
        return FoundRow(agreement, found.is_new, found.is_held)


def not_seen(agreement: Agreement, why: HandleError) -> RunNotSeenError:
    """Return the error that a run cannot be seen from this host.

    Args:
        agreement: what rank 0 has published.
        why: what came of opening its directory.
    """
    where = quoted(agreement.directory, 300)
    return RunNotSeenError(
        f"rank 0 has run {quoted(agreement.run_name)} in {where} on host "
        f"{quoted(agreement.owner.host)[1:-1]}, and host {quoted(host_name())[1:-1]} does not see "
        f"it ({why}). Name a directory that all hosts share in logging.log_dir or KEISEI_LOG_DIR",
        path=agreement.directory,
        host=agreement.owner.host,
    )
