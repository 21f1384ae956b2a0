"""A run's lease as its owner keeps it: what is asked of the registry, and what its answers mean."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from keisei._io.process import since_boot
from keisei.run.lease import Holder
from keisei.run.session_file import Lease

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

BEATS = 3  # renewals in each time to live

Answer = int | Holder | None


class Keeper(Protocol):
    """The thread that renews leases."""

    def keep(self, held: KeptLease) -> None:
        """Renew a lease from now on."""
        ...

    def confirm(self, held: KeptLease) -> None:
        """Renew a lease now, and wait for the answer, shortly."""
        ...

    def release(self, held: KeptLease) -> None:
        """Release a lease; never waits."""
        ...


class KeptLease:
    """A run's lease, renewed from `keep` to `release`; see `keisei.run.lease.HeldLease`.

    Args:
        keeper: the thread that renews it.
        session_id: the run's id.
        owner: who has it.
        ttl: its time to live, in seconds.
        gone: an owner that has ended, whose lease is free.
        least: the least epoch.

    Attributes:
        lease: what the session file says of it; ``None`` while the registry has not given it.
        was_over: whether it was another owner's, whose time is over.
        renewed: when it was renewed last, in seconds since the boot.
        due: when it is to be renewed.
        ttl: its time to live.
        other: who else has it, once that is known.
    """

    def __init__(
        self,
        keeper: Keeper,
        session_id: str,
        owner: Holder,
        ttl: float,
        gone: Holder | None,
        least: int,
    ) -> None:
        self.lease: Lease | None = None
        self.was_over = False
        self.other: Holder | None = None
        self.renewed, self.due, self.ttl = since_boot(), 0.0, ttl
        self._keeper, self._session_id, self._owner = keeper, session_id, owner
        self._gone, self._least = gone, least
        self._on_lost: Callable[[Holder], object] = lambda other: None
        self._on_acquired: Callable[[Lease], object] = lambda lease: None
        self._found_over = False
        self._process = os.getpid()

    def keep(self, lost: Callable[[Holder], object], acquired: Callable[[Lease], object]) -> None:
        """Renew it from now on."""
        self._on_lost, self._on_acquired = lost, acquired
        self._keeper.keep(self)

    def confirm(self) -> Holder | None:
        """Return who else has it; asked where the process was stopped for longer than it lasts."""
        late = self.lease is not None and since_boot() - self.renewed > self.ttl
        if late and self.other is None and os.getpid() == self._process:
            self._keeper.confirm(self)
        return self.other

    def release(self) -> None:
        """Release it; never waits."""
        if os.getpid() == self._process:
            self._keeper.release(self)

    def acquired_in(self, connection: Connection, over: Lease | None, registry: str) -> Answer:
        """Acquire it in a transaction; see `keisei.run.lease.LeaseSource`.

        Returns:
            Its epoch, or who has it, or ``None`` where the registry knows nothing of the owner
            that may live.
        """
        from keisei.store import leases

        was_over = leases.is_over(connection, self._session_id, over.epoch if over else None)
        if over is not None and (over.registry != registry or was_over is None):
            return None
        if over is not None and not was_over:
            return leases.holder(connection, self._session_id)
        answer = leases.acquire(
            connection,
            self._session_id,
            self._owner,
            self.ttl,
            gone=self._gone,
            least=self._least,
        )
        self._found_over = bool(was_over)
        return answer

    def renewed_in(self, connection: Connection, registry: str) -> Answer:
        """Renew it in a transaction, or acquire it where that is still to be done.

        Returns:
            Its epoch, or who has it.
        """
        from keisei.store import leases

        if self.lease is None:
            return self.acquired_in(connection, None, registry)
        epoch = self.lease.epoch
        other = leases.renew(connection, self._session_id, self._owner, epoch, self.ttl)
        return epoch if other is None else other

    def released_in(self, connection: Connection, registry: str) -> Answer:
        """Release it in a transaction."""
        from keisei.store import leases

        assert self.lease is not None
        leases.release(connection, self._session_id, self._owner, self.lease.epoch)
        return None

    def answered(self, answer: Answer, registry: str, asked_at: float) -> None:
        """Note what the registry has answered to a renewal, which is committed."""
        if isinstance(answer, int):
            lease, self.renewed = self.noted(answer, registry, asked_at), asked_at
            if lease is not None:
                _aside(self._on_acquired, lease)
        elif answer is not None and (
            self.lease is not None or answer.attempt > self._owner.attempt
        ):
            self.other = answer
            _aside(self._on_lost, answer)
        # Else it is still an earlier owner's, from whom the directory was taken: it will be over.
        self.due = asked_at + self.ttl / BEATS

    def acquired(self, epoch: int, registry: str, asked_at: float) -> None:
        """Note that it was acquired for a start that has waited for it; it is committed."""
        self.was_over = self._found_over
        self.noted(epoch, registry, asked_at)

    def noted(self, epoch: int, registry: str, asked_at: float) -> Lease | None:
        """Note an epoch, and return the lease where it is news."""
        lease = Lease(epoch=epoch, ttl=self.ttl, registry=registry)
        before, self.lease, self.renewed = self.lease, lease, asked_at
        return None if lease == before else lease


def _aside(function: Callable[..., object], *args: object) -> None:
    """Call a function on a thread of its own: it may wait for a disk."""
    with suppress(RuntimeError):
        threading.Thread(target=function, args=args, name="keisei-lease", daemon=True).start()
