"""The run's directories, planned, made and owned: `run/paths` and `_io/files` put together."""

from __future__ import annotations

import errno
import functools
import os
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from keisei._io import files, locks, process
from keisei._log import logger
from keisei.config.schema import AppConfig
from keisei.errors import DirectorySetupError, quoted
from keisei.journal.format import attempt_of
from keisei.redaction import clean
from keisei.run import names, session_file
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
from keisei.run.log_lines import end_line
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
    """A run's directories, owned by this process: the one place that writes to them.

    What is written is whole even where the caller is cancelled, and costs one hop to a thread.

    Attributes:
        paths: where they are.
        record: the run's record, as it stands in `session.json`.
        torn_lines: how many of the logs had a torn last line, which the claim has closed.
        fallback_reason: why the fallback root is used, or ``None`` where it is not.
    """

    paths: RunPaths
    record: SessionRecord
    torn_lines: int = 0
    fallback_reason: str | None = None
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _ended: bool = False

    async def save_config(self, text: str) -> None:
        """Write the effective config, keeping an earlier attempt's beside it.

        The directory is made again if it has gone.

        Args:
            text: the config's text.

        Raises:
            OSError: it cannot be written; the old one is as it was.
        """
        save = partial(_save_config, self.paths, text.encode(), self.record.attempt)
        await files.in_turn(partial(files.in_thread, self._alone, save))

    async def log(self, line: str) -> None:
        """Append a line to the training log.

        Raises:
            OSError: it cannot be written.
        """
        log = partial(_log, self.paths, line)
        await files.in_turn(partial(files.in_thread, self._alone, log))

    async def update(self, **changes: object) -> None:
        """Change the run's record.

        Args:
            changes: the fields of `SessionRecord` that change.

        Raises:
            OSError: it cannot be written.
        """
        await files.in_turn(partial(files.in_thread, self._alone, partial(self._update, changes)))

    async def end(self, final: FinalStatus, duration_s: float) -> None:
        """Record how the run ended, then append the end line to its training log.

        Args:
            final: how the run ended.
            duration_s: how long it took, in seconds.

        Raises:
            OSError: one of them cannot be written; the other was tried all the same.
        """
        await files.in_turn(partial(files.in_thread, self.end_now, final, duration_s))

    def end_now(self, final: FinalStatus, duration_s: float) -> None:
        """Do what `end` does, blocking; an end that is recorded already stays as it is."""
        self._alone(partial(self._end, final, duration_s))

    def _alone(self, work: Callable[[], None]) -> None:
        """Let one thread at a time write: two that replaced one file could mix its halves."""
        if not self._writing.acquire(timeout=files.FILE_TIMEOUT):
            raise TimeoutError(errno.ETIMEDOUT, "another write hangs", self.paths.run_artifact_dir)
        try:
            work()
        finally:
            self._writing.release()

    def _update(self, changes: Mapping[str, object]) -> None:
        self.record = self.record.model_copy(update=dict(changes))
        files.make_directory(self.paths.run_artifact_dir)
        with files.OpenDirectory(self.paths.run_artifact_dir) as directory:
            files.write_atomic(directory, RECORD_FILE, self.record.text())

    def _end(self, final: FinalStatus, duration_s: float) -> None:
        if self._ended:
            return
        moment = now()
        try:
            try:
                self._update({"status": final, "ended_at": moment, "duration_s": duration_s})
            finally:
                _log(self.paths, end_line(moment, self.record.run_name, final, duration_s))
            self._ended = True
        finally:
            _here.discard((self.record.session_id, self.record.attempt))


async def setup_directories(config: AppConfig, run_name: str, session_id: str) -> OwnedRun:
    """Make and claim the run's directories, in one hop.

    Args:
        config: says where runs live, and what to do where this one exists.
        run_name: the run's name.
        session_id: the id to use where the run is new.

    Raises:
        SessionInUseError: the name is taken.
        DirectorySetupError: a directory cannot be made or written.
    """
    return await files.in_thread(_claim_or_fall_back, config, run_name, session_id)


def _save_config(paths: RunPaths, text: bytes, attempt: int) -> None:
    files.make_directory(paths.run_artifact_dir)
    with files.OpenDirectory(paths.run_artifact_dir) as directory:
        if attempt > 1:
            kept = CONFIG_FILE.replace(".json", f".attempt-{attempt - 1}.json")
            earlier = directory.read(CONFIG_FILE)
            if earlier is not None and directory.read(kept) is None:
                files.write_atomic(directory, kept, earlier)
        files.write_atomic(directory, CONFIG_FILE, text)


def _log(paths: RunPaths, line: str) -> None:
    with files.OpenDirectory(paths.run_artifact_dir) as directory:
        files.append(directory, TRAINING_LOG, f"{line}\n".encode())


def _claim_or_fall_back(config: AppConfig, run_name: str, session_id: str) -> OwnedRun:
    logging_config = config.logging
    models = os.environ.get("KEISEI_MODEL_DIR") or logging_config.model_dir
    try:
        root = root_of_runs(configured=logging_config.log_dir)
        model_root = absolute_path(models) if models else None
        return _claim(config, root, model_root, run_name, session_id)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        failed = str(exc.filename or run_name)
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
    """Give an error as it may stand in a traceback: a path can hold a secret."""
    if isinstance(exc, OSError) and exc.filename is not None:
        return OSError(exc.errno, exc.strerror, clean(exc.filename))
    return exc


def _claim(
    config: AppConfig, root: str, model_root: str | None, run_name: str, session_id: str
) -> OwnedRun:
    """Make and claim the first directory that may be taken: the name's, or a numbered one."""
    files.make_directory(root)
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
        earlier = _read_record(directory, paths)
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
        names = directory.names()
        for left in filter(TEMPORARY.fullmatch, names):  # by a start that died
            directory.unlink(left)
        # An attempt whose record is lost has left its journal: no other one gets its number.
        journals = [attempt for name in names if (attempt := attempt_of(name))]
        _make_models(directory, paths)
        torn = [files.append(directory, log, b"") for log in (TRAINING_LOG, EVALUATION_LOG)]
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
        )
        files.write_atomic(directory, RECORD_FILE, record.text())
        return OwnedRun(paths, record, torn_lines=sum(torn))


def _lives(record: SessionRecord) -> bool:
    """Tell whether the owner of a run's last attempt lives, and the attempt with it."""
    owner = record.owner
    if owner == _owner(os.getpid()):
        return (record.session_id, record.attempt) in _here
    return owner_state(owner) != "died"


def _read_record(directory: files.OpenDirectory, paths: RunPaths) -> SessionRecord | None:
    """Read the run's record, or rebuild what its log says of it where that is lost."""
    name = os.path.basename(paths.run_artifact_dir)
    text = directory.read(RECORD_FILE)
    record = None if text is None else SessionRecord.parsed(text)
    if record is not None:
        return record
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
    """Give the wall clock's time, ISO 8601 with offset."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
