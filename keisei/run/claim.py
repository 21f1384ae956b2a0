"""The run's directories, planned, made and owned: `run/paths` and `_io/files` put together."""

from __future__ import annotations

import errno
import functools
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from keisei._io import files, locks, process
from keisei._log import logger
from keisei.config.schema import AppConfig
from keisei.errors import DirectorySetupError, quoted
from keisei.journal.format import attempt_of
from keisei.redaction import clean
from keisei.run import names, session_file
from keisei.run.failure import Failure
from keisei.run.find import absolute_path, owner_state, root_of_runs
from keisei.run.layout import (
    CONFIG_FILE,
    EVALUATION_LOG,
    MODELS,
    RECORD_FILE,
    TRAINING_LOG,
    RunPaths,
    plan_paths,
)
from keisei.run.log_lines import end_line, start_line
from keisei.run.rebuild import rebuilt_record, salvaged_owner
from keisei.run.session_file import Owner, SessionRecord
from keisei.run.status import FinalStatus

# The attempts that live in this process: a record that says so of another one could not be ended.
_here: set[tuple[str, int]] = set()

TEMPORARY = re.compile(r"\.(session|effective_config(\.attempt-\d+)?)\.json\.tmp")
_LINE_MARKS = (b"] session started: run ", b"] session ended: run ")
_LONGEST_LINE = 4096  # bytes: keisei's own lines are far shorter


@dataclass
class OwnedRun:
    """A run's directories, owned by this process: the one object that writes to them.

    Its methods block, and are thread-safe: one at a time writes.

    Attributes:
        paths: where they are.
        record: the run's record, as it stands in the session file.
        earlier: the record of the run's last attempt before this one, where it had one.
        torn_lines: how many of the logs had a torn last line, which the claim has closed.
        fallback_reason: why the fallback root is used, or ``None`` where it is not.
    """

    paths: RunPaths
    record: SessionRecord
    earlier: SessionRecord | None = None
    torn_lines: int = 0
    fallback_reason: str | None = None
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _ended: bool = False

    def save_config(self, text: str) -> None:
        """Write the effective config, keeping an earlier attempt's beside it.

        The directory is made again if it has gone.

        Args:
            text: the config's text.

        Raises:
            OSError: it cannot be written; the old one is as it was.
        """
        with self._alone(), self._directory() as directory:
            if self.record.attempt > 1:
                kept = CONFIG_FILE.replace(".json", f".attempt-{self.record.attempt - 1}.json")
                earlier = directory.read(CONFIG_FILE)
                if earlier is not None and directory.read(kept) is None:
                    files.write_atomic(directory, kept, earlier)
            files.write_atomic(directory, CONFIG_FILE, text.encode())

    def log_start(self) -> None:
        """Append the start line to the training log.

        Raises:
            OSError: it cannot be written.
        """
        record = self.record
        line = start_line(now(), record.run_name, record.session_id, record.attempt)
        with self._alone(), files.OpenDirectory(self.paths.run_artifact_dir) as directory:
            files.append(directory, TRAINING_LOG, f"{line}\n".encode())

    def update(self, **changes: object) -> None:
        """Change the session file.

        Args:
            changes: the fields of `SessionRecord` that change.

        Raises:
            OSError: it cannot be written.
        """
        with self._alone(), self._directory() as directory:
            self._write(directory, changes)

    def end(self, final: FinalStatus, duration_s: float, failure: Failure | None = None) -> None:
        """Record how the run ended, then append the end line to its training log.

        An end that is recorded already stays as it is.

        Args:
            final: how the run ended.
            duration_s: how long it took, in seconds.
            failure: why, where an error or a signal ended it.

        Raises:
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
            try:
                with self._directory() as directory:
                    try:
                        self._write(directory, changes)
                    finally:
                        files.append(directory, TRAINING_LOG, f"{line}\n".encode())
                self._ended = True
            finally:
                _here.discard((self.record.session_id, self.record.attempt))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads out: two that replaced one file could mix its halves."""
        if not self._writing.acquire(timeout=files.FILE_TIMEOUT):
            raise TimeoutError(errno.ETIMEDOUT, "another write hangs", self.paths.run_artifact_dir)
        try:
            yield
        finally:
            self._writing.release()

    def _directory(self) -> files.OpenDirectory:
        """Open the run's directory; it is made again if it has gone."""
        path = self.paths.run_artifact_dir
        try:
            return files.OpenDirectory(path)
        except FileNotFoundError:
            files.make_directory(path)
            return files.OpenDirectory(path)

    def _write(self, directory: files.OpenDirectory, changes: Mapping[str, object]) -> None:
        self.record = self.record.model_copy(update=dict(changes))
        files.write_atomic(directory, RECORD_FILE, self.record.text())


async def setup_directories(
    config: AppConfig,
    run_name: str,
    session_id: str,
    claimed: Callable[[OwnedRun], object] = lambda owned: None,
) -> OwnedRun:
    """Make and claim the run's directories, in one hop.

    Args:
        config: says where runs live, and what to do where this one exists.
        run_name: the run's name.
        session_id: the id to use where the run is new.
        claimed: called on the thread when the run is owned, also where the caller was cancelled
            meanwhile and sees no result.

    Raises:
        SessionInUseError: the name is taken.
        DirectorySetupError: a directory cannot be made or written.
    """

    def work() -> OwnedRun:
        owned = claim(config, run_name, session_id)
        claimed(owned)
        return owned

    return await files.in_thread(work)


def claim(config: AppConfig, run_name: str, session_id: str) -> OwnedRun:
    """Make and claim the run's directories, blocking; see `setup_directories`."""
    logging_config = config.logging
    models = os.environ.get("KEISEI_MODEL_DIR") or logging_config.model_dir
    place = run_name
    try:
        place = root = root_of_runs(configured=logging_config.log_dir)
        model_root = absolute_path(models) if models else None
        return _claim(config, root, model_root, run_name, session_id)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        failed = str(exc.filename or place)
        if logging_config.fallback_dir is None:
            raise DirectorySetupError(
                f"cannot set up the directories of run {run_name}: {quoted(failed, 300)}: "
                f"{reason}. Free or fix that place, choose another one with logging.log_dir or "
                "KEISEI_LOG_DIR, or name a logging.fallback_dir.",
                path=failed,
            ) from shown(exc)
    fallback = logging_config.fallback_dir
    logger.warning(
        "%s cannot be used (%s): run %s lives under the fallback %s",
        quoted(failed, 300),
        reason,
        run_name,
        quoted(str(fallback), 300),
    )
    try:
        owned = _claim(config, absolute_path(fallback), None, run_name, session_id)
    except OSError as exc:
        raise DirectorySetupError(
            f"cannot set up the directories of run {run_name}: {quoted(failed, 300)}: {reason}; "
            f"nor in logging.fallback_dir {quoted(str(fallback), 300)}: {exc.strerror or exc}",
            path=str(fallback),
        ) from shown(exc)
    return replace(owned, fallback_reason=f"{failed}: {reason}")


def shown(exc: Exception) -> Exception:
    """Return an error as it may stand in a traceback: a path can hold a secret."""
    if isinstance(exc, OSError) and exc.filename is not None:
        return OSError(exc.errno, exc.strerror, clean(exc.filename))
    return exc


def _claim(
    config: AppConfig, root: str, model_root: str | None, run_name: str, session_id: str
) -> OwnedRun:
    """Make and claim the first directory that may be taken: the name's, or a numbered one."""
    name, number = run_name, 1
    while True:
        paths = plan_paths(root, model_root, name)
        made = files.make_directory(paths.run_artifact_dir)
        try:
            owned = _take(config, paths, name, session_id, made=made)
        except OSError:
            if made:
                _unmake(paths)
            raise
        if owned is not None:
            _here.add((owned.record.session_id, owned.record.attempt))
            return owned
        number += 1
        name = names.numbered(run_name, number)


def _take(
    config: AppConfig, paths: RunPaths, name: str, session_id: str, *, made: bool
) -> OwnedRun | None:
    """Take a directory under its lock; ``None`` where the next number is to be tried."""
    with (
        files.OpenDirectory(paths.run_artifact_dir) as directory,
        locks.locked(directory, TRAINING_LOG),
    ):
        earlier = _read_record(directory, paths, made=made)
        if not session_file.may_take(
            earlier,
            made=made,
            alive=earlier is not None and _lives(earlier),
            if_exists=config.logging.if_exists,
            path=paths.run_artifact_dir,
        ):
            return None
        if earlier is None and not made:  # its maker may have died before it could do this
            files.sync_directory(os.path.dirname(paths.run_artifact_dir))
        new = made and earlier is None  # so that nothing stands in it
        names = [] if new else directory.names()
        for left in filter(TEMPORARY.fullmatch, names):  # by a start that died
            directory.unlink(left)
        # An attempt whose record is lost has left its journal: no other one gets its number.
        journals = [attempt for name in names if (attempt := attempt_of(name))]
        _make_models(directory, paths)
        logs = (EVALUATION_LOG,) if new else (TRAINING_LOG, EVALUATION_LOG)
        torn = [files.append(directory, log, b"") for log in logs]
        if any(torn):
            logger.warning("a torn last line in a log of run %s was closed", name)
        record = SessionRecord(
            session_id=earlier.session_id if earlier is not None else session_id,
            run_name=name,
            attempt=max([earlier.attempt if earlier else 0, *journals]) + 1,
            status="running",
            owner=_owner(os.getpid()),
            started_at=now(),
            paths=paths.as_dict(),
            trackers={},
        )
        files.write_atomic(directory, RECORD_FILE, record.text())
        return OwnedRun(paths, record, earlier, torn_lines=sum(torn))


def _lives(record: SessionRecord) -> bool:
    """Return whether the owner of a run's last attempt lives, and the attempt with it."""
    owner = record.owner
    if owner == _owner(os.getpid()):
        return (record.session_id, record.attempt) in _here
    return owner_state(owner) != "died"


def _read_record(
    directory: files.OpenDirectory, paths: RunPaths, *, made: bool
) -> SessionRecord | None:
    """Read the run's record, or rebuild what its log says of it where that is lost."""
    name = os.path.basename(paths.run_artifact_dir)
    text = directory.read(RECORD_FILE)
    record = None if text is None else SessionRecord.parsed(text)
    if record is not None:
        return record
    if text is None and made:
        return None
    if text is not None:
        owner = salvaged_owner(text)
        if owner is not None and owner_state(owner) != "died":
            raise session_file.in_use(name, owner, paths.run_artifact_dir)
        kept = directory.set_aside(RECORD_FILE, "corrupt")
        where = quoted(os.path.join(directory.path, kept), 300)
        logger.warning("the record of run %s was corrupt, and is set aside as %s", name, where)
    record = rebuilt_record(own_lines(directory), name, paths.as_dict())
    if record is not None:
        logger.warning("the record of run %s was rebuilt from its training log", name)
    return record


def own_lines(directory: files.OpenDirectory) -> str:
    """Read keisei's own lines of a training log, however large that is."""
    found, begins = [], True
    with (
        suppress(FileNotFoundError),
        open(directory.open(TRAINING_LOG, os.O_RDONLY), "rb") as log,
    ):
        while part := log.readline(_LONGEST_LINE):
            if begins and any(mark in part for mark in _LINE_MARKS):
                found.append(part.rstrip(b"\n"))
            begins = part.endswith(b"\n")
    return b"\n".join(found).decode(errors="replace")


def _make_models(directory: files.OpenDirectory, paths: RunPaths) -> None:
    """Make the models' directory; one that stands there is no file, and no link elsewhere."""
    if os.path.dirname(paths.model_dir) == directory.path:
        made = directory.make(os.path.basename(paths.model_dir))
    else:
        made = files.make_directory(paths.model_dir)
    if not made:
        with files.OpenDirectory(paths.model_dir):
            pass


def _unmake(paths: RunPaths) -> None:
    """Remove what a failed claim has made; whatever else stands there stays."""
    root, name = os.path.split(paths.run_artifact_dir)
    with suppress(OSError):
        with files.OpenDirectory(paths.run_artifact_dir) as directory:
            for log in (EVALUATION_LOG, TRAINING_LOG):
                if directory.read(log) == b"":
                    directory.unlink(log)
            directory.remove(MODELS)
        with files.OpenDirectory(os.path.realpath(root)) as above:
            above.remove(name)
    with suppress(OSError):  # where no descriptor was left, and so nothing had been made in it
        os.rmdir(paths.run_artifact_dir)


@functools.lru_cache(maxsize=1)
def _owner(pid: int) -> Owner:
    return Owner(
        host=process.host_name(), pid=pid, process_start=process.process_start(pid) or "unknown"
    )


def now() -> str:
    """Return the wall clock's time, ISO 8601 with offset."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
