"""A run that this process owns: what writes to its directory, and whether its owner lives."""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from keisei._io import files, locks, process
from keisei._io.files import OpenDirectory
from keisei._io.forks import after_in_child
from keisei._io.held import HeldDirectory
from keisei._log import logger
from keisei.config.changes import Change
from keisei.errors import TakenOverError, quoted
from keisei.run import find
from keisei.run.failure import Failure
from keisei.run.layout import CONFIG_FILE, ORIGINS_FILE, RECORD_FILE, TRAINING_LOG, RunPaths
from keisei.run.lease import HeldLease
from keisei.run.log_lines import end_line, start_line
from keisei.run.session_file import Lease, Owner, SessionRecord
from keisei.run.status import FinalStatus

SIGNS = 4  # signs of life in each `logging.owner_timeout`
# What is said where a link, a directory, a pipe or a device stands in a file's place.
_NO_FILES = frozenset([errno.ELOOP, errno.EISDIR, errno.EINVAL])
_WRITERS_TIMEOUT = 2.0  # seconds, for a start or a repair that is at work

# The attempts that live in this process: a record that says so of another one could not be ended.
_here: set[tuple[str, int]] = set()


@dataclass
class OwnedRun:
    """A run's directories, owned by this process: the one object that writes to them.

    Its methods block, and are thread-safe: one at a time writes.

    Attributes:
        paths: where they are.
        record: the run's record, as it stands in the session file.
        home: the run's directory, which is held open until `release`.
        earlier: the record of the run's last attempt before this one, where it had one.
        changes: what this attempt's config changes of the earlier one's.
        torn_lines: how many of the logs had a torn last line, which the claim has closed.
        fallback_reason: why the fallback root is used, or ``None`` where it is not.
        recorded: whether the session file has the run's end.
        unsynced: while what is made is left to `sync`: the directories above that it has to sync.
        taken_over: the error that another owner has taken the run over, once that is known. From
            then on nothing of this one's is written in the run's directory.
        on_taken_over: called with it, once, on the thread that has noticed it.
        lease: the run's lease in a registry, or the wish for it, where one is named.
    """

    paths: RunPaths
    record: SessionRecord
    home: HeldDirectory
    earlier: SessionRecord | None = None
    changes: list[Change] = field(default_factory=list)
    torn_lines: int = 0
    fallback_reason: str | None = None
    recorded: bool = False
    unsynced: list[str] | None = None
    taken_over: TakenOverError | None = None
    on_taken_over: Callable[[TakenOverError], object] = lambda error: None
    lease: HeldLease | None = None
    _seen: tuple[int, int, int] | None = None  # the session file, as it was last read here
    _noting: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _released: threading.Event = field(default_factory=threading.Event)
    _ended: bool = False
    _line_written: bool = False

    def __post_init__(self) -> None:
        _here.add((self.record.session_id, self.record.attempt))
        self.home.check = self._check
        if self.record.owner.timeout is not None:
            show = threading.Thread(target=self._show_life, name="keisei-owner", daemon=True)
            with suppress(RuntimeError):  # no thread is left: then by what it writes alone
                show.start()

    def save_config(self, text: str, origins: str) -> None:
        """Write the effective config and its origins, keeping an earlier attempt's beside them.

        The directory is made again if it has gone.

        Args:
            text: the config's text.
            origins: where its values came from, as text; where it is empty it is not written.

        Raises:
            OSError: it cannot be written; the old one is as it was.
        """
        with self._alone(), self.home.entered() as directory:
            self._save(directory, CONFIG_FILE, text, sync=True)
            if origins:
                self._save(directory, ORIGINS_FILE, origins, sync=False)

    def _save(self, directory: OpenDirectory, name: str, text: str, *, sync: bool) -> None:
        sync_name = self.unsynced is None
        if self.record.attempt > 1:
            kept = name.replace(".json", f".attempt-{self.record.attempt - 1}.json")
            earlier = directory.read(name)
            if earlier is not None and directory.read(kept) is None:
                files.write_atomic(directory, kept, earlier, sync=sync, sync_name=sync_name)
        files.write_atomic(directory, name, text.encode(), sync=sync, sync_name=sync_name)

    def log_start(self) -> None:
        """Append the start line to the training log.

        Raises:
            OSError: it cannot be written.
        """
        record = self.record
        line = start_line(now(), record.run_name, record.session_id, record.attempt)
        with self._alone(), self.home.entered() as directory:
            data, sync = f"{line}\n".encode(), self.unsynced is None
            files.append(directory, TRAINING_LOG, data, sync=sync)

    def sync(self) -> None:
        """Make what the set-up steps have made survive a loss of power, all of it at once.

        So a disk that takes seconds for an fsync is waited for once here, and not for each file.

        Raises:
            OSError: a directory cannot be synced. Of the log it is a warning.
        """
        above, self.unsynced = list(dict.fromkeys(self.unsynced or ())), None
        with self._alone(), self.home.entered() as directory:
            syncs = [partial(files.sync_directory, path) for path in above]
            files.at_once([directory.sync, *syncs, partial(self._sync_log, directory)])

    def _sync_log(self, directory: OpenDirectory) -> None:
        try:
            files.sync_file(directory, TRAINING_LOG)
        except OSError as exc:
            logger.warning("the start of run %s cannot be logged: %s", self.record.run_name, exc)

    def update(self, **changes: object) -> None:
        """Change the session file; nothing happens where the run has its next owner by now.

        Args:
            changes: the fields of `SessionRecord` that change.

        Raises:
            TakenOverError: another owner has taken the run over while this one lives.
            OSError: it cannot be written.
        """
        try:
            with self._alone(), self.home.entered() as directory, _as_only_writer(directory):
                self._write(directory, changes)
        except TakenOverError:
            if not self._ended:
                raise

    def end(self, final: FinalStatus, duration_s: float, failure: Failure | None = None) -> None:
        """Record how the run ended, then append the end line to its training log.

        An end that is recorded already stays as it is. One that fails may be tried again.

        Args:
            final: how the run ended.
            duration_s: how long it took, in seconds.
            failure: why, where an error or a signal ended it.

        Raises:
            TakenOverError: another owner has taken the run over; nothing was written.
            OSError: one of them cannot be written; the other was tried all the same.
        """
        with self._alone():
            if self._ended:
                return
            moment = now()
            line = end_line(moment, self.record.run_name, final, duration_s, failure)
            changes = {
                "status": final,
                "ended_at": moment,
                "duration_s": duration_s,
                "failure": failure,
            }
            with self.home.entered() as directory, _as_only_writer(directory):
                error: OSError | None = None
                self.unsynced = None  # nobody will come back for it
                try:
                    self._write(directory, changes)
                    self.recorded = True
                except TakenOverError:
                    raise
                except OSError as exc:
                    error = exc
                if not self._line_written:
                    files.append_whole(directory, TRAINING_LOG, f"{line}\n".encode())
                    self._line_written = True
                if error is not None:
                    raise error
            self._ended = True

    def release(self) -> None:
        """Own the run no longer; a second call changes nothing."""
        self._released.set()
        if self.lease is not None:
            self.lease.release()
        _here.discard((self.record.session_id, self.record.attempt))
        self.home.release()

    def keep_lease(self, on_taken_over: Callable[[TakenOverError], object]) -> None:
        """Renew the run's lease from now on, and learn where another owner takes the run over.

        Args:
            on_taken_over: called with the error, once, on the thread that has noticed it.
        """
        self.on_taken_over = on_taken_over
        if self.lease is not None:
            self.lease.keep(
                lambda other: self.lose(other.host, other.pid, other.attempt), self._note_lease
            )

    def _note_lease(self, lease: Lease) -> None:
        """Write a lease that was acquired late into the session file, for the next start."""
        try:
            self.update(lease=lease)
        except (OSError, RuntimeError) as exc:
            text = "the lease of run %s cannot be written to its session file: %s"
            logger.warning(text, self.record.run_name, exc)

    def _show_life(self) -> None:
        """Touch the session file, so that others see that its owner lives."""
        timeout = self.record.owner.timeout
        assert timeout is not None
        while not self._released.wait(timeout / SIGNS) and self.taken_over is None:
            with suppress(OSError), self.home.entered() as directory:
                directory.touch(RECORD_FILE)

    def check(self) -> None:
        """Check that nobody has taken the run over.

        Raises:
            TakenOverError: another owner has.
            OSError: the directory cannot be opened.
        """
        with self.home.entered():
            pass

    def lose(self, host: str, pid: int, attempt: int) -> None:
        """Note that another owner has taken the run over; a second call changes nothing.

        Args:
            host: the host of that owner.
            pid: its process.
            attempt: which attempt it is.
        """
        with self._noting:
            if self.taken_over is not None:
                return
            self.taken_over = TakenOverError(
                f"process {pid} on host {quoted(host)[1:-1]} has taken the run over, as attempt "
                f"{attempt}: nothing more is written to it here",
                path=self.paths.run_artifact_dir,
                host=host,
                pid=pid,
            )
        if not self._released.is_set():  # after the end it is the next attempt's, and no news
            self.on_taken_over(self.taken_over)

    def _check(self, directory: OpenDirectory) -> None:
        """Refuse to write where the session file is another owner's."""
        if self.lease is not None and (other := self.lease.confirm()) is not None:
            self.lose(other.host, other.pid, other.attempt)
        if self.taken_over is None:
            try:
                fd = directory.open(RECORD_FILE, os.O_RDONLY)
            except OSError:
                return  # it was removed or replaced: the next write of it says so
            with open(fd, "rb") as file:
                stat = os.fstat(fd)
                seen = stat.st_ino, stat.st_mtime_ns, stat.st_size
                text = None if seen == self._seen else file.read()
            if text is None:
                return
            self._compare(SessionRecord.parsed(text))
            self._seen = seen
        if self.taken_over is not None:
            raise again(self.taken_over)

    def _compare(self, found: SessionRecord | None) -> None:
        """Compare what the session file says with what this owner has written.

        Raises:
            TakenOverError: it is another owner's.
        """
        own = self.record
        if found is not None and (
            found.session_id != own.session_id
            or found.attempt > own.attempt
            or (found.attempt == own.attempt and found.owner != own.owner)
        ):
            self.lose(found.owner.host, found.owner.pid, found.attempt)
            assert self.taken_over is not None
            raise again(self.taken_over)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads out: two that replaced one file could mix its halves."""
        if not self._writing.acquire(timeout=files.FILE_TIMEOUT):
            raise TimeoutError(errno.ETIMEDOUT, "another write hangs", self.paths.run_artifact_dir)
        try:
            yield
        finally:
            self._writing.release()

    def _write(self, directory: OpenDirectory, changes: Mapping[str, object]) -> None:
        """Write the session file, unless it is another owner's by now."""
        what = "was removed"
        try:
            text = directory.read(RECORD_FILE)
        except OSError as exc:
            if exc.errno not in _NO_FILES:
                raise
            text, what = None, "was replaced by what is no file"
            directory.set_aside(RECORD_FILE, "other")  # it may be somebody's
        found = None if text is None else SessionRecord.parsed(text)
        own = self.record
        self._compare(found)
        if found is None and not self._ended:
            what = what if text is None else "was damaged"
            logger.warning(
                "the session file of run %s %s while its owner lives: it is written again",
                own.run_name,
                what,
            )
        self.record = own.model_copy(update=dict(changes))
        sync_name = self.unsynced is None
        files.write_atomic(directory, RECORD_FILE, self.record.text(), sync_name=sync_name)


def again(error: TakenOverError) -> TakenOverError:
    """Return the error anew, to be raised in one more place."""
    return TakenOverError(str(error), path=error.path, host=error.host, pid=error.pid)


@contextmanager
def _as_only_writer(directory: OpenDirectory) -> Iterator[None]:
    """Keep starts and repairs out; one that hangs keeps nobody from recording the truth."""
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(locks.locked(directory, TRAINING_LOG, _WRITERS_TIMEOUT))
        yield


def lives(record: SessionRecord, directory: OpenDirectory, timeout: float | None) -> bool:
    """Return whether the owner of a run's last attempt lives, and the attempt with it.

    Args:
        record: what the session file says.
        directory: the run's directory.
        timeout: how long an owner that cannot be seen may have shown no sign of life, in seconds;
            ``None`` for ever.
    """
    owner, own = record.owner, this_owner()
    if (owner.pid, owner.process_start) == (own.pid, own.process_start) and find.seen(owner):
        return (record.session_id, record.attempt) in _here
    state = find.owner_state(owner, directory)
    if state != "elsewhere" or timeout is None or owner.timeout is None:
        return state != "died"
    return directory.now() - find.last_sign(directory) < max(timeout, owner.timeout)


@functools.lru_cache(maxsize=1)
def this_owner() -> Owner:
    """Return this process, as the owner of a run."""
    pid, host = os.getpid(), process.host_name()
    return Owner(
        host=host,
        pid=pid,
        process_start=process.process_start(pid) or "unknown",
        kernel=f"{host}/{process.kernel()}",
        pid_namespace=process.pid_namespace(),
        machine=process.machine(),
    )


after_in_child(this_owner.cache_clear)


def now() -> str:
    """Return the wall clock's time, ISO 8601 with offset."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
