"""The run's directories, planned, made and owned: `run/paths` and `_io/files` put together."""

from __future__ import annotations

import errno
import functools
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from keisei._io import files, process
from keisei.config_schema import AppConfig
from keisei.errors import DirectorySetupError, quoted
from keisei.run import identity, ownership
from keisei.run.ownership import Owner, SessionRecord
from keisei.run.paths import (
    CONFIG_FILE,
    EVALUATION_LOG,
    RECORD_FILE,
    TRAINING_LOG,
    RunPaths,
    plan_paths,
)

logger = logging.getLogger("keisei")

DEFAULT_ROOT = "runs"


@dataclass
class OwnedRun:
    """A run's directories, owned by this process: the one place that writes to them.

    What is written is whole even where the caller is cancelled, and costs one hop to a thread.

    Attributes:
        paths: where they are.
        record: the run's record, as it stands in `session.json`.
        fallback_reason: why the fallback root is used, or ``None`` where it is not.
    """

    paths: RunPaths
    record: SessionRecord
    fallback_reason: str | None = None

    async def save_config(self, text: str) -> None:
        """Write the effective config, keeping an earlier attempt's beside it.

        The directory is made again if it has gone.

        Args:
            text: the config's text.

        Raises:
            OSError: it cannot be written; the old one is as it was.
        """
        attempt = self.record.attempt
        save = partial(files.in_thread, _save_config, self.paths, text.encode(), attempt)
        await files.in_turn(save)

    async def log(self, line: str) -> None:
        """Append a line to the training log.

        Raises:
            OSError: it cannot be written.
        """
        await files.in_turn(partial(files.in_thread, _log, self.paths, line))

    async def update(self, *, line: str | None = None, **changes: object) -> None:
        """Change the run's record, then append a line to its training log.

        Args:
            line: the log line, if any; it is tried although the record failed.
            changes: the fields of `SessionRecord` that change.

        Raises:
            OSError: one of them cannot be written.
        """
        self.record = self.record.model_copy(update=changes)
        update = partial(files.in_thread, _update, self.paths, self.record.text(), line)
        await files.in_turn(update)


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


def _update(paths: RunPaths, record: bytes, line: str | None) -> None:
    try:
        files.make_directory(paths.run_artifact_dir)
        with files.OpenDirectory(paths.run_artifact_dir) as directory:
            files.write_atomic(directory, RECORD_FILE, record)
    finally:
        if line is not None:
            _log(paths, line)


def _claim_or_fall_back(config: AppConfig, run_name: str, session_id: str) -> OwnedRun:
    logging_config = config.logging
    root = os.environ.get("KEISEI_LOG_DIR") or logging_config.log_dir or DEFAULT_ROOT
    models = os.environ.get("KEISEI_MODEL_DIR") or logging_config.model_dir
    try:
        model_root = _absolute(models) if models else None
        return _claim(config, _absolute(root), model_root, run_name, session_id)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        failed = str(exc.filename or root)
        if logging_config.fallback_dir is None:
            raise DirectorySetupError(
                f"cannot set up the directories of run {run_name}: {quoted(failed, 300)}: "
                f"{reason}. Free or fix that place, choose another one with logging.log_dir or "
                "KEISEI_LOG_DIR, or name a logging.fallback_dir.",
                path=failed,
            ) from exc
    fallback = logging_config.fallback_dir
    logger.warning(
        "%s cannot be used (%s): run %s lives under the fallback %s",
        quoted(failed, 300),
        reason,
        run_name,
        quoted(str(fallback), 300),
    )
    try:
        owned = _claim(config, _absolute(fallback), None, run_name, session_id)
    except OSError as exc:
        raise DirectorySetupError(
            f"cannot set up the directories of run {run_name}: {quoted(failed, 300)}: {reason}; "
            f"nor in logging.fallback_dir {quoted(str(fallback), 300)}: {exc.strerror or exc}",
            path=str(fallback),
        ) from exc
    return replace(owned, fallback_reason=f"{failed}: {reason}")


def _absolute(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    try:
        legal = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        legal = False
    if not legal:
        raise OSError(errno.EINVAL, "no path can hold one of its characters", text)
    return os.path.abspath(os.path.expanduser(text))


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
            record = _take(config, paths, name, session_id, made=made)
        except OSError as exc:
            if made:
                _unmake(paths)
            # Files are opened relative to their directory, and so are named in the error.
            place = os.path.join(paths.run_artifact_dir, exc.filename or "")
            raise OSError(exc.errno, exc.strerror or str(exc), place) from exc
        if record is not None:
            return OwnedRun(paths, record)
        number += 1
        name = identity.numbered(run_name, number)


def _take(
    config: AppConfig, paths: RunPaths, name: str, session_id: str, *, made: bool
) -> SessionRecord | None:
    """Take a directory under its lock; ``None`` where the next number is to be tried."""
    with (
        files.OpenDirectory(paths.run_artifact_dir) as directory,
        files.locked(directory, TRAINING_LOG),
    ):
        earlier = _read_record(directory)
        owner = earlier.owner if earlier is not None else None
        if not ownership.may_take(
            earlier,
            made=made,
            alive=owner is not None and process.lives(owner.host, owner.pid, owner.process_start),
            if_exists=config.logging.if_exists,
            path=paths.run_artifact_dir,
        ):
            return None
        _make_models(paths)
        files.append(directory, EVALUATION_LOG, b"")
        record = SessionRecord(
            session_id=earlier.session_id if earlier is not None else session_id,
            run_name=name,
            attempt=earlier.attempt + 1 if earlier is not None else 1,
            status="running",
            owner=_owner(os.getpid()),
            started_at=now(),
            paths=paths.as_dict(),
        )
        files.write_atomic(directory, RECORD_FILE, record.text())
        return record


def _read_record(directory: files.OpenDirectory) -> SessionRecord | None:
    text = directory.read(RECORD_FILE)
    if text is None:
        return None
    record = SessionRecord.parsed(text)
    if record is None:
        kept = f"{RECORD_FILE}.corrupt"
        directory.replace(RECORD_FILE, kept)
        where = os.path.join(directory.path, kept)
        logger.warning("a torn session record was set aside as %s", quoted(where, 300))
    return record


def _make_models(paths: RunPaths) -> None:
    if not files.make_directory(paths.model_dir):
        with files.OpenDirectory(paths.model_dir):  # no file, and no link out of the run's root
            pass


def _unmake(paths: RunPaths) -> None:
    """Remove what a failed claim has made; whatever else stands there stays."""
    for name in (EVALUATION_LOG, TRAINING_LOG):
        with suppress(OSError):
            path = os.path.join(paths.run_artifact_dir, name)
            if os.path.getsize(path) == 0:
                os.unlink(path)
    for path in (paths.model_dir, paths.run_artifact_dir):
        with suppress(OSError):
            os.rmdir(path)


@functools.lru_cache(maxsize=1)
def _owner(pid: int) -> Owner:
    return Owner(
        host=process.host_name(), pid=pid, process_start=process.process_start(pid) or "unknown"
    )


def now() -> str:
    """Give the wall clock's time, ISO 8601 with offset."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
