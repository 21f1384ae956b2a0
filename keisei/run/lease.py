"""What a run needs of a registry that keeps leases, and what a lease tells of a run's owner."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from keisei._log import logger
from keisei.run.session_file import Lease, Owner


class Holder(NamedTuple):
    """Who has a run's lease.

    Attributes:
        host: its host.
        pid: its process.
        start: when that was started, in a form that two processes of one id never share.
        attempt: which attempt of the run it is.
        kernel: the host and the kernel that it runs under, where that is known.
        namespace: the namespace that its id belongs to, where that is known.
    """

    host: str
    pid: int
    start: str
    attempt: int
    kernel: str | None = None
    namespace: str | None = None

    @property
    def as_owner(self) -> Owner:
        """The holder as the session file names an owner."""
        return Owner(
            host=self.host,
            pid=self.pid,
            process_start=self.start,
            kernel=self.kernel,
            pid_namespace=self.namespace,
        )


def holder(owner: Owner, attempt: int) -> Holder:
    """Return the owner of an attempt as its lease names it."""
    start, namespace = owner.process_start, owner.pid_namespace
    return Holder(owner.host, owner.pid, start, attempt, owner.kernel, namespace)


class HeldLease(Protocol):
    """A run's lease, or the wish for one while the registry is away; thread-safe.

    Attributes:
        lease: what the session file says of it; ``None`` while the registry has not given it.
        was_over: whether it was another owner's, whose time is over.
    """

    lease: Lease | None
    was_over: bool

    def keep(self, lost: Callable[[Holder], object], acquired: Callable[[Lease], object]) -> None:
        """Renew it from now on, until it is released.

        Args:
            lost: called once, on a thread that must not wait, where another one has it.
            acquired: called on a thread when it was acquired late, or anew.
        """
        ...

    def confirm(self) -> Holder | None:
        """Return who else has it; asks shortly where the process has renewed nothing too long."""
        ...

    def release(self) -> None:
        """Release it; never waits."""
        ...


class LeaseSource(Protocol):
    """A registry that keeps leases of runs."""

    def acquire(
        self,
        session_id: str,
        owner: Holder,
        *,
        gone: Holder | None = None,
        over: Lease | None = None,
        least: int = 1,
    ) -> HeldLease | Holder:
        """Acquire a run's lease; blocks, and waits for a registry that is away only shortly.

        Args:
            session_id: the run's id.
            owner: who acquires it.
            gone: an owner that is known to have ended: its lease is free.
            over: the lease of an owner that may live: nothing is acquired unless its time is over
                in this registry, or another one has acquired the run's lease since.
            least: the least epoch.

        Returns:
            The lease, or who has it.
        """
        ...


def warn_of_two_registries(run_name: str, earlier: Lease | None, lease: Lease | None) -> None:
    """Warn where a run's lease is in another registry than that of its last attempt was.

    Args:
        run_name: the run's name.
        earlier: the lease of its last attempt.
        lease: the new one.
    """
    if earlier is not None and lease is not None and earlier.registry != lease.registry:
        text = "run %s was in another registry (%s): starts that do not name the same one do not "
        text += "see each other's leases. It goes on, owned as this registry and the locks say"
        logger.warning(text, run_name, earlier.registry)
