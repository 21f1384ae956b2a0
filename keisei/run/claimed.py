"""What decides whether a start may have a run's directory: its record, its locks and its lease."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

from keisei._io import files, locks
from keisei._io.held import HeldDirectory
from keisei.config.schema import AppConfig
from keisei.errors import SessionInUseError
from keisei.journal.format import part_of
from keisei.run import find, session_file
from keisei.run.layout import RECORD_FILE, TRAINING_LOG, RunPaths
from keisei.run.lease import HeldLease, Holder, LeaseSource, holder, warn_of_two_registries
from keisei.run.owned import lives, this_owner
from keisei.run.rebuild import UNKNOWN
from keisei.run.session_file import LaunchRecord, Lease, SessionRecord
from keisei.run.status import FINAL

_PATIENCE = 2.0  # seconds for another start, before the lease is asked


class Start(NamedTuple):
    """What a start brings to a claim."""

    config: AppConfig
    run_name: str
    session_id: str
    launch: LaunchRecord | None
    leases: LeaseSource | None
    sync_later: bool


def enter(
    start: Start, name: str, directory: files.OpenDirectory, held: ExitStack
) -> HeldLease | None:
    """Take the lock that admits one start or repair at a time, from a stopped owner, too.

    Returns:
        The run's lease, where it has said that the lock's holder has lost the run.
    """
    if start.leases is None or directory.fd is None:
        held.enter_context(locks.locked(directory, TRAINING_LOG))
        return None
    try:
        held.enter_context(locks.locked(directory, TRAINING_LOG, _PATIENCE))
        return None
    except locks.LockedError:
        lease = _lease_over(start, name, directory)
    if lease is None:
        held.enter_context(locks.locked(directory, TRAINING_LOG))
        return None
    try:
        held.enter_context(locks.replaced(directory, TRAINING_LOG))
    except BaseException:
        lease.release()
        raise
    return lease


def _lease_over(start: Start, name: str, directory: files.OpenDirectory) -> HeldLease | None:
    """Acquire the lease of a run whose owner has lost it; ``None`` where that is not known."""
    record = SessionRecord.parsed(directory.read(RECORD_FILE) or b"")
    resumes = start.config.logging.if_exists == "resume"
    if start.leases is None or record is None or record.lease is None or not resumes:
        return None
    own = holder(this_owner(), record.attempt + 1)
    lease = _acquired(start.leases, record.session_id, own, None, record.lease, record.lease)
    if isinstance(lease, Holder):
        raise _leased(name, lease, directory)
    if lease.was_over:
        return lease
    lease.release()
    return None


def _acquired(
    leases: LeaseSource,
    session_id: str,
    own: Holder,
    gone: Holder | None,
    over: Lease | None,
    last: Lease | None,
) -> HeldLease | Holder:
    """Acquire a run's lease, also that of a start that was killed before it had the run."""
    least = 1 if last is None else last.epoch + 1
    answer = leases.acquire(session_id, own, gone=gone, over=over, least=least)
    if isinstance(answer, Holder) and find.seen(answer.as_owner) is False:
        answer = leases.acquire(session_id, own, gone=answer, over=over, least=least)
    return answer


def _leased(name: str, other: Holder, directory: files.OpenDirectory) -> SessionInUseError:
    return session_file.in_use(name, other.as_owner, directory.path, leased=True)


class Claimed:
    """A directory that is being claimed, under the lock that admits one start or repair at a time.

    Args:
        start: the start that claims it.
        paths: the run's paths.
        name: the run's name.
        directory: the directory.
        earlier: the record of the run's last attempt.
        made: whether this start has made the directory.
        lease: the run's lease, where it was acquired by now.

    Attributes:
        goes_on: whether the launch that this start belongs to had the last attempt, too.
        if_exists: what is done with a run that exists.
        may_live: whether an earlier owner has not ended, as far as is known for sure.
        alive: whether it counts as alive.
        lease: the run's lease in the registry, or the wish for it.
    """

    def __init__(
        self,
        start: Start,
        paths: RunPaths,
        name: str,
        directory: files.OpenDirectory,
        earlier: SessionRecord | None,
        made: bool,
        lease: HeldLease | None,
    ) -> None:
        self.start, self.paths, self.name = start, paths, name
        self.directory, self.earlier, self.made = directory, earlier, made
        self.names = [] if made and earlier is None else directory.names()
        # An attempt whose record is lost has left its journal: no other one gets its number.
        journals = [known[0] for name in self.names if (known := part_of(name))]
        self.attempt = max([earlier.attempt if earlier else 0, *journals]) + 1
        self.session_id = earlier.session_id if earlier is not None else start.session_id
        # The launcher has ended whatever it starts again, also where that cannot be seen from here.
        self.goes_on = bool(earlier and start.launch and start.launch.goes_on_from(earlier.launch))
        self.if_exists = "resume" if self.goes_on else start.config.logging.if_exists
        self.may_live, self.alive = lease is not None, False
        if earlier is not None and earlier.status not in FINAL:
            self.may_live = lease is not None or lives(earlier, directory, None)
            timeout = start.config.logging.owner_timeout
            self.alive = self.may_live and not self.goes_on and lives(earlier, directory, timeout)
        self.lease = lease
        if lease is None and (self.made or self.if_exists == "resume"):
            self._acquire()
        if self.lease is not None and self.lease.was_over:
            self.alive = False

    @property
    def fencing(self) -> tuple[int, ...]:
        """The attempts whose owners may still be in the middle of a write."""
        if self.earlier is None:
            return ()
        return (*self.earlier.fencing, *([self.earlier.attempt] if self.may_live else ()))

    @property
    def mark(self) -> str:
        """What temporary names have where an earlier owner may live, and may use the same."""
        timeout = self.start.config.logging.owner_timeout
        may = self.fencing or self.start.leases is not None or timeout is not None
        return f".{self.attempt}" if may and self.attempt > 1 else ""

    @property
    def taken_over(self) -> bool:
        """Whether the lease says that the run is to be taken from an owner that may live."""
        return self.may_live and self.lease is not None and self.lease.was_over

    def _acquire(self) -> None:
        """Acquire the run's lease, where its owner cannot have it.

        Raises:
            SessionInUseError: it has it.
        """
        earlier, leases = self.earlier, self.start.leases
        over = earlier.lease if earlier is not None and self.alive else None
        if leases is None or (self.alive and over is None):
            return
        known = earlier is not None and (self.goes_on or not self.may_live)
        own, last = holder(this_owner(), self.attempt), earlier.lease if earlier else None
        gone = holder(earlier.owner, earlier.attempt) if earlier is not None and known else None
        answer = _acquired(leases, self.session_id, own, gone, over, last)
        if isinstance(answer, Holder):
            raise _leased(self.name, answer, self.directory)
        self.lease = answer
        warn_of_two_registries(self.name, last, answer.lease)

    def lock(self, home: HeldDirectory) -> bool:
        """Lock the directory for the life of its owner; return whether it may be taken.

        A stopped owner, whose lease was over, keeps its lock: then the run is held without one.

        Raises:
            SessionInUseError: another one holds its lock.
        """
        earlier = self.earlier
        try:
            ends = bool(earlier and earlier.status in FINAL and earlier.owner != UNKNOWN)
            home.lock(self.directory, is_ending=ends)
        except locks.LockedError:
            # A process that was forked from an owner that has died keeps its lock.
            dead = earlier is not None and find.seen(earlier.owner) is False
            if not dead and not self.taken_over:
                if self.start.config.logging.if_exists == "number":
                    return False
                owner = earlier.owner if earlier is not None else UNKNOWN
                raise session_file.in_use(self.name, owner, self.directory.path) from None
        return True
