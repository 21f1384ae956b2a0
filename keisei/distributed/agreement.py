"""How the ranks of a launch find one run: rank 0 publishes it in a file, the others wait for it.

There is no barrier: rank 0 goes on as soon as the run is its own, and each other rank as soon as it
has read of it. Whoever waits has a deadline, and leaves nothing behind where it is cancelled.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio

from keisei._io import files, locks
from keisei._io.directories import OpenDirectory
from keisei._io.forks import after_in_child
from keisei.distributed.agreement_file import (
    DIRECTORY,
    Agreement,
    Terms,
    check_terms,
    earlier_files,
    file_name,
)
from keisei.distributed.agreement_row import AgreementRow, not_seen
from keisei.distributed.launchers import Launch
from keisei.errors import (
    HandleError,
    RankLostError,
    RankTimeoutError,
    RunEndedError,
    SessionInUseError,
    TakenOverError,
    describe,
    quoted,
)
from keisei.run import find, parts
from keisei.run.failure import failure_of
from keisei.run.joined import JoinedRun, join
from keisei.run.layout import RECORD_FILE
from keisei.run.owned import OwnedRun, this_owner
from keisei.run.parts import OwnedPart, claim_part
from keisei.run.session_file import SessionRecord
from keisei.run.status import FINAL

_KEPT = 30 * 86400.0  # seconds that the file of a launch is kept, for one that is started again
_LOCK = "lock"
_LOCK_TIMEOUT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.05  # seconds between two looks

# How many sessions this process has started, by launch, start and rank.
_started: Counter[tuple[str, int, int, int]] = Counter()
after_in_child(_started.clear)


class Meeting:
    """Where the ranks of a launch meet for one session.

    The sessions of a launch are counted, on each rank alike, so that the third session of one rank
    meets the third of the others.

    Args:
        launch: the launch.
        roots: the directories under which the run may live, the first one first.
        terms: what all ranks have to have in common.
        registry: the URL of a registry, for ranks that do not share a root.
    """

    def __init__(
        self, launch: Launch, roots: list[str], terms: Terms, registry: str | None = None
    ) -> None:
        key = launch.identity, launch.requeues, launch.restart, launch.rank
        self._launch, self._roots, self._terms = launch, roots, terms
        self._number = _started[key]
        _started[key] += 1
        self._name = file_name(launch, self._number)
        self._row = None if registry is None else AgreementRow(registry, self._name)
        self._seen: str | None = None  # what was found last, and is of no use

    def lead(self, claim: Callable[[str | None], OwnedRun]) -> None:
        """Claim the run as rank 0, and publish it. It blocks.

        Args:
            claim: claims it; given the name of the run that an earlier start of this launch
                has had, if there was one.

        Raises:
            SessionInUseError: another process that lives is rank 0 of this launch.
            OSError: the file cannot be written.
        """
        with self._opened() as directory:
            agreement, gone = self._take(directory)
            try:
                if self._row and (other := self._row.take(agreement, gone)) is not None:
                    raise self._in_use(other)
                owned = claim(self._earlier(directory))
            except BaseException as exc:
                with suppress(OSError):
                    self._write(directory, agreement, problem=describe(exc))
                raise
            record = owned.record
            self._write(
                directory,
                agreement,
                run_name=record.run_name,
                session_id=record.session_id,
                attempt=record.attempt,
                directory=owned.paths.run_artifact_dir,
            )

    @contextmanager
    def _opened(self) -> Iterator[OpenDirectory]:
        """Open the directory of agreements under the first root where it can be made."""
        for number, root in enumerate(self._roots):
            try:
                path = os.path.join(root, DIRECTORY)
                files.make_directory(path)
                directory = OpenDirectory(path)
            except OSError:
                if number == len(self._roots) - 1:
                    raise
            else:
                break
        with directory:
            yield directory

    def _take(self, directory: OpenDirectory) -> tuple[Agreement, Agreement | None]:
        """Note in the file that this process is rank 0, where no other one that lives is.

        Returns:
            What it publishes, and what one that has ended had published there.
        """
        terms, launch = self._terms, self._launch
        agreement = Agreement(
            launcher=launch.launcher,
            identity=launch.identity,
            owner=this_owner(),
            name=terms.name,
            world_size=terms.world_size,
            version=terms.version,
            config=dict(terms.config),
        )
        other = None
        with locks.locked(directory, _LOCK, _LOCK_TIMEOUT):
            try:
                os.close(directory.open(self._name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                text = directory.read(self._name)
                other = Agreement.parsed(text) if text else None
                if other is not None and _is_at_work(directory, self._name, other):
                    raise self._in_use(other) from None
            files.write_atomic(directory, self._name, agreement.text())
            _remove_old(directory)
        return agreement, other

    def _write(self, launches: OpenDirectory, agreement: Agreement, **changes: object) -> None:
        changed = agreement.model_copy(update=changes)
        files.write_atomic(launches, self._name, changed.text())
        if self._row is not None:
            self._row.publish(changed)

    def _earlier(self, directory: OpenDirectory) -> str | None:
        """Return the name of the run that an earlier start of this launch has had."""
        for name in earlier_files(directory.names(), self._launch, self._number):
            text = directory.read(name)
            agreement = Agreement.parsed(text) if text else None
            if agreement is not None and self._terms.name in (None, agreement.name):
                return agreement.run_name or self._terms.name
        return None

    def _in_use(self, other: Agreement) -> SessionInUseError:
        owner = other.owner
        return SessionInUseError(
            f"rank 0 of launch {quoted(self._launch.identity)} is process {owner.pid} on host "
            f"{quoted(owner.host)[1:-1]}: either rank 0 was started twice, or two launches have "
            "one identity, and distributed.identity tells them apart. If that process is gone, "
            f"wait {parts.SILENT_AFTER:.0f} s",
            path=other.directory,
            host=owner.host,
            pid=owner.pid,
        )

    async def follow(
        self,
        timeout: float,
        may_differ: list[str],
        claimed: Callable[[OwnedPart, SessionRecord], object],
    ) -> None:
        """Wait until rank 0 has published its run, and claim this rank's part of it.

        Args:
            timeout: the longest wait, in seconds.
            may_differ: the fields and sections of the config in which ranks may differ.
            claimed: called on the thread with the part that is claimed, also where the caller was
                cancelled meanwhile.

        Raises:
            RankTimeoutError: rank 0 has not published its run in time.
            RankMismatchError: rank 0 has started differently.
            RunNotSeenError: the registry knows the run, which cannot be seen from here.
            PartInUseError: another process that lives is this rank.
            HandleError: the run's directory cannot be seen from here.
            DistributedError: rank 0 has no run; the message says why.
        """
        give_up, pause = time.monotonic() + timeout, _FIRST_PAUSE

        def look() -> bool:
            found = self._look(timeout, may_differ)
            if found is not None:
                claimed(*found)
            return found is not None

        while not await files.in_thread(look):
            left = give_up - time.monotonic()
            if left <= 0:
                raise self._too_late(timeout)
            await anyio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _look(
        self, timeout: float, may_differ: list[str]
    ) -> tuple[OwnedPart, SessionRecord] | None:
        for root in self._roots:
            try:
                with OpenDirectory(os.path.join(root, DIRECTORY)) as directory:
                    text = directory.read(self._name)
                    agreement = Agreement.parsed(text) if text else None
                    if agreement is None:
                        continue
                    if agreement.problem is not None:
                        self._seen = f"rank 0 has no run ({agreement.problem})"
                        if _is_of_now(directory, self._name, agreement, timeout):
                            raise RankLostError(f"{self._seen}: see to rank 0 first", rank=0)
                        continue
            except FileNotFoundError:
                continue
            found = self._joined(agreement, may_differ)
            if found is not None:
                return found
        return None if self._row is None else self._look_in_registry(self._row, may_differ)

    def _look_in_registry(
        self, row: AgreementRow, may_differ: list[str]
    ) -> tuple[OwnedPart, SessionRecord] | None:
        """Claim this rank's part of the run that the registry knows, if that has answered."""
        if (found := row.look()) is None:
            return None
        agreement, is_new, is_held = found
        if agreement.problem is not None:
            self._seen = f"rank 0 has no run ({agreement.problem})"
            if is_new and find.seen(agreement.owner) is not False:
                raise RankLostError(f"{self._seen}: see to rank 0 first", rank=0)
            return None
        try:
            return self._joined(agreement, may_differ)
        except HandleError as exc:
            if is_held:
                raise not_seen(agreement, exc) from None
            self._seen = describe(exc)
            return None

    def _joined(
        self, agreement: Agreement, may_differ: list[str]
    ) -> tuple[OwnedPart, SessionRecord] | None:
        """Claim this rank's part of a run that was published, unless that is over."""
        if agreement.directory is None or agreement.session_id is None:
            self._seen = "rank 0 is about to claim its run"
            return None
        run_name = agreement.run_name or ""
        try:
            run = join(agreement.directory, run_name, agreement.session_id, agreement.attempt)
        except HandleError as exc:
            if find.seen(agreement.owner) is not False:
                raise
            self._seen = describe(exc)
            return None
        except (RunEndedError, TakenOverError) as exc:
            self._seen = describe(exc)
            if self._launch.is_unique:
                raise RankLostError(f"this rank comes too late: {exc}", rank=0) from None
            return None  # it may be an earlier launch's, of the same identity
        record = _record_of(run)
        part = claim_part(run, rank=self._launch.rank)
        try:
            check_terms(agreement, self._terms, self._launch.rank, may_differ)
        except BaseException as exc:
            with suppress(OSError):
                part.end("failed", failure_of(exc))
            part.release()
            raise
        if record is None:
            part.release()
            return None
        return part, record

    def _too_late(self, timeout: float) -> RankTimeoutError:
        where = quoted(os.path.join(self._roots[0], DIRECTORY), 300)
        found = f" (what was found: {self._seen})" if self._seen else ""
        return RankTimeoutError(
            f"rank 0 of launch {quoted(self._launch.identity)} has published no run in {where} "
            f"within {timeout:g} s{found}. See that rank 0 runs, that its launch has the same "
            "identity (distributed.identity), and that all ranks see the same root "
            "(logging.log_dir); distributed.timeout is how long they wait"
        )


def _record_of(run: JoinedRun) -> SessionRecord | None:
    with run.home.entered() as directory:
        text = directory.read(RECORD_FILE)
    return None if text is None else SessionRecord.parsed(text)


def _is_at_work(directory: OpenDirectory, name: str, agreement: Agreement) -> bool:
    """Return whether the process that has published this is, or may be, rank 0 still."""
    alive = find.seen(agreement.owner)
    if alive is False or agreement.problem is not None:
        return False
    own = this_owner()
    if alive and (agreement.owner.pid, agreement.owner.process_start) == (
        own.pid,
        own.process_start,
    ):
        return False
    if agreement.directory is None:
        return alive is True or _age(directory, name) < parts.SILENT_AFTER
    try:
        with OpenDirectory(agreement.directory) as home:
            text = home.read(RECORD_FILE)
            record = None if text is None else SessionRecord.parsed(text)
            if record is None or record.session_id != agreement.session_id:
                return False
            if record.attempt != agreement.attempt or record.status in FINAL:
                return False
            if find.owner_state(record.owner, home) == "died":
                return False
            return alive is True or home.now() - find.last_sign(home) < parts.SILENT_AFTER
    except OSError:
        return alive is True


def _is_of_now(directory: OpenDirectory, name: str, agreement: Agreement, timeout: float) -> bool:
    """Return whether a problem is of this launch, and not left by one with the same identity."""
    return find.seen(agreement.owner) is not False and _age(directory, name) < timeout


def _age(directory: OpenDirectory, name: str) -> float:
    return directory.now() - directory.stat(name).st_mtime


def _remove_old(directory: OpenDirectory) -> None:
    """Remove what launches have left that will not be started again."""
    with suppress(OSError):
        oldest = directory.now() - _KEPT
        for name in directory.names():
            if name.endswith(".json") and directory.stat(name).st_mtime < oldest:
                directory.unlink(name)
