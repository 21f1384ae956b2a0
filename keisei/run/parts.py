"""The parts of a run on disk: claimed by one process each, ended, and found again."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from keisei._io import files, locks
from keisei._io.directories import OpenDirectory
from keisei._log import logger
from keisei.errors import (
    DirectorySetupError,
    HandleError,
    KeiseiError,
    PartInUseError,
    quoted,
)
from keisei.journal.attempt import Left, take_up
from keisei.journal.format import file_name
from keisei.journal.merging import in_order
from keisei.run import find
from keisei.run.failure import Failure
from keisei.run.joined import JoinedRun
from keisei.run.layout import EVALUATION_LOG, PARTS, TRAINING_LOG, log_file
from keisei.run.owned import now, this_owner
from keisei.run.part_file import (
    PartRecord,
    check_role,
    lock_file,
    part_in,
    part_of_rank,
    state_file,
)
from keisei.run.session_file import Owner
from keisei.run.status import FINAL, FinalStatus

PartState = Literal[
    "running", "died", "elsewhere", "completed", "failed", "cancelled", "preempted", "unreadable"
]

SILENT_AFTER = 45.0  # seconds after the last sign of life of a part that cannot be seen
_LOCK_TIMEOUT = 2.0  # seconds, for others that only look whether it is locked
_PAUSE = 0.005


@dataclass(frozen=True)
class FoundPart:
    """A part of a run, and what its state's file says.

    Attributes:
        part: what it is called, as `rank3` or `rollout-3`.
        attempt: the run's attempt that it is a part of.
        state: how it stands: `died` where its process is known to be gone and has recorded no
            end, `elsewhere` where that process cannot be seen from here.
        record: what the file says; ``None`` where that cannot be read.
    """

    part: str
    attempt: int
    state: PartState
    record: PartRecord | None = None


@dataclass
class OwnedPart:
    """A part of a run that this process writes, from its claim to its end.

    Its methods block.

    Attributes:
        run: the run that it is a part of.
        record: its record, as it stands in its state's file.
        left: what an earlier process has left of its journal in this attempt, which goes on.
    """

    run: JoinedRun
    record: PartRecord
    left: Left | None
    _lock: locks.HeldLock
    _released: bool = field(default=False)

    @property
    def part(self) -> str:
        """What the part is called."""
        return self.record.part

    def end(self, final: FinalStatus, failure: Failure | None = None) -> None:
        """Record how the part ended; an end that is recorded stays as it is.

        It is also recorded where the run has ended meanwhile: a part's state is its own.

        Args:
            final: how it ended.
            failure: why, where an error or a signal ended it.

        Raises:
            OSError: it cannot be written.
        """
        if self.record.status in FINAL or self._released:
            return
        changes = {"status": final, "ended_at": now(), "failure": failure}
        record = self.record.model_copy(update=changes)
        with self.run.home.entered(checked=False) as directory, directory.inside(PARTS) as parts:
            name = state_file(record.attempt, record.part)
            files.write_atomic(parts, name, record.text())
        self.record = record

    def show_life(self) -> None:
        """Show that the process lives, to those who cannot see it: its state's file is touched.

        Raises:
            OSError: the file cannot be touched.
        """
        with self.run.home.entered() as directory, directory.inside(PARTS) as parts:
            parts.touch(state_file(self.record.attempt, self.part))

    def release(self) -> None:
        """Write the part no longer; a second call changes nothing."""
        if not self._released:
            self._released = True
            self._lock.release()
            self.run.leave()


def claim_part(run: JoinedRun, *, role: str | None = None, rank: int | None = None) -> OwnedPart:
    """Claim a part of a run for this process. It blocks.

    What a process that has died left of it in the same attempt goes on: torn last lines of its
    logs are closed, and what is torn off its journal is cut.

    Args:
        run: the run, joined; the part leaves it where it is released, or cannot be claimed.
        role: the member's role, or
        rank: the rank.

    Raises:
        InvalidRoleError: the role cannot name files, or is reserved.
        PartInUseError: another one that lives, or may live, writes this part.
        HandleError: the run's files are another user's, or what should be a directory is none.
        RunEndedError: the run has ended.
        TakenOverError: the run goes on as a later attempt.
        DirectorySetupError: something cannot be read or written.
    """
    try:
        part = part_of_rank(rank) if rank is not None else check_role(role)
        with run.home.entered() as directory:
            directory.make(PARTS)
            try:
                opened = directory.inside(PARTS)
            except OSError as exc:
                where = quoted(os.path.join(directory.path, PARTS), 300)
                raise HandleError(
                    f"{where}: {find.reason(exc)}, where the directory of the run's parts should "
                    "be. Move it away",
                    path=directory.path,
                ) from exc
            with opened as parts:
                return _claimed(run, directory, parts, part, rank)
    except BaseException as exc:
        run.leave()
        if isinstance(exc, OSError) and not isinstance(exc, KeiseiError):
            failed = str(exc.filename or run.home.path)
            raise DirectorySetupError(
                f"a part of run {quoted(run.run_name)} cannot be set up: {quoted(failed, 300)}: "
                f"{find.reason(exc)}. Free or fix that place, and try again",
                path=failed,
            ) from None
        raise


def _claimed(
    run: JoinedRun, directory: OpenDirectory, parts: OpenDirectory, part: str, rank: int | None
) -> OwnedPart:
    lock = _locked(run, parts, part)
    try:
        _check_user(directory, parts, lock_file(run.attempt, part))
        name = state_file(run.attempt, part)
        text = parts.read(name)
        earlier = None if text is None else PartRecord.parsed(text)
        if earlier is not None and _may_live(parts, earlier, lock):
            raise _in_use(run, part, earlier.owner)
        for log in (TRAINING_LOG, EVALUATION_LOG):
            log = log_file(log, part)
            if directory.holds(log) and files.append(directory, log, b""):
                logger.warning("a torn last line in %s of run %s was closed", log, run.run_name)
        locked = _identity(parts, lock_file(run.attempt, part)) if lock.exclusive else None
        record = PartRecord(
            part=part,
            rank=rank,
            session_id=run.session_id,
            attempt=run.attempt,
            owner=this_owner().model_copy(update={"locked": locked}),
            started_at=now(),
        )
        files.write_atomic(parts, name, record.text())
        left = take_up(directory, file_name(run.attempt, part))
        return OwnedPart(run, record, left, lock)
    except BaseException:
        lock.release()
        raise


def _locked(run: JoinedRun, parts: OpenDirectory, part: str) -> locks.HeldLock:
    """Take the lock that a part's process holds for as long as it lives."""
    name = lock_file(run.attempt, part)
    give_up = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            return locks.hold(parts, name, content=b"", timeout=0.0)
        except locks.LockedError:
            if locks.is_file_locked(parts, name) or time.monotonic() > give_up:
                text = parts.read(state_file(run.attempt, part))
                record = None if text is None else PartRecord.parsed(text)
                raise _in_use(run, part, record.owner if record else None) from None
        time.sleep(_PAUSE)  # somebody looks whether it is locked


def _may_live(parts: OpenDirectory, earlier: PartRecord, lock: locks.HeldLock) -> bool:
    """Return whether the last process that has claimed a part may write it still.

    Args:
        parts: the directory of parts.
        earlier: the record of that claim.
        lock: the part's lock, which this process has.
    """
    if earlier.status != "running" or (alive := find.seen(earlier.owner)) is False:
        return False
    if lock.exclusive and _is_its_lock(parts, earlier):
        return False
    return alive or parts.now() - last_sign(parts, earlier) <= SILENT_AFTER


def _is_its_lock(parts: OpenDirectory, record: PartRecord) -> bool:
    """Return whether the lock's file is the one that a process under this kernel has locked."""
    name = lock_file(record.attempt, record.part)
    return record.owner.locked == _identity(parts, name) and find.under_this_kernel(record.owner)


def _in_use(run: JoinedRun, part: str, owner: Owner | None) -> PartInUseError:
    whose = f"process {owner.pid} on host {quoted(owner.host)[1:-1]}" if owner else "another one"
    return PartInUseError(
        f"part {quoted(part)} of run {quoted(run.run_name)} is written by {whose}: one process "
        "writes a part at a time. Use another role (or rank), or wait until that one has ended",
        path=run.home.path,
        host=owner.host if owner else None,
        pid=owner.pid if owner else None,
    )


def _check_user(directory: OpenDirectory, parts: OpenDirectory, name: str) -> None:
    """Check that what is made here belongs to the user who owns the run: they are to read it."""
    if directory.fd is None:
        return
    made, owner = parts.stat(name).st_uid, os.fstat(directory.fd).st_uid
    if made != owner:
        parts.unlink(name)
        raise HandleError(
            f"{quoted(directory.path, 300)} belongs to the user with the id {owner}, and this "
            f"process makes files of the user {made}: start the member as the user who runs the "
            "session",
            path=directory.path,
        )


def _identity(parts: OpenDirectory, name: str) -> str:
    found = parts.stat(name)
    return f"{found.st_dev}:{found.st_ino}"


def parts_of(
    directory: OpenDirectory,
    attempt: int | None = None,
    gone: Collection[str] = (),
    silent_after: float | None = None,
) -> list[FoundPart]:
    """Return the parts of a run that other processes than its owner have claimed, sorted.

    Nothing is changed, unless `silent_after` is given: then a file is made for a moment, to ask
    the file system for its time.

    Args:
        directory: the run's directory, held open.
        attempt: the parts of one attempt; without it, the last one of each part.
        gone: hosts that are known to be gone, with whatever ran there.
        silent_after: for how long a part whose process cannot be seen may have shown no sign of
            life, in seconds, until it counts as dead; ``None`` for ever.

    Raises:
        OSError: the directory of parts cannot be read.
    """
    try:
        opened = directory.inside(PARTS)
    except FileNotFoundError:
        return []
    with opened as parts:
        found: dict[str, int] = {}
        for name in parts.names():
            known = part_in(name)
            if known is not None and attempt in (None, known[0]):
                found[known[1]] = max(known[0], found.get(known[1], 0))
        return [
            _found(parts, found[part], part, gone, silent_after)
            for part in sorted(found, key=in_order)
        ]


def _found(
    parts: OpenDirectory,
    attempt: int,
    part: str,
    gone: Collection[str],
    silent_after: float | None,
) -> FoundPart:
    try:
        record = PartRecord.parsed(find.read_file(parts, state_file(attempt, part)))
    except OSError:
        record = None
    if record is None or (record.part, record.attempt) != (part, attempt):
        return FoundPart(part, attempt, "unreadable")
    return FoundPart(part, attempt, _state(parts, record, gone, silent_after), record)


def _state(
    parts: OpenDirectory, record: PartRecord, gone: Collection[str], silent_after: float | None
) -> PartState:
    if record.status != "running":
        return record.status
    alive = find.seen(record.owner)
    if alive is False:
        return "died"
    with suppress(OSError):
        locked = locks.is_file_locked(parts, lock_file(record.attempt, record.part))
        if locked:
            return "running"
        if locked is False and _is_its_lock(parts, record):
            return "died"
    if alive:
        return "running"
    if record.owner.host in gone:
        return "died"
    if silent_after is not None and parts.now() - last_sign(parts, record) > silent_after:
        return "died"
    return "elsewhere"


def last_sign(parts: OpenDirectory, record: PartRecord) -> float:
    """Return when a part last showed life, in seconds since the epoch.

    Args:
        parts: the directory of parts, held open.
        record: the part's record.

    Raises:
        OSError: its state's file is not there.
    """
    times = [parts.stat(state_file(record.attempt, record.part)).st_mtime]
    with suppress(OSError):
        journal = os.path.join(os.path.dirname(parts.path), file_name(record.attempt, record.part))
        times.append(os.lstat(journal).st_mtime)
    return max(times)
