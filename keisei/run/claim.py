"""The claim of a run: its directories are planned, made and taken, by one owner at a time."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import ExitStack, suppress

from keisei._io import files
from keisei._io.held import HeldDirectory
from keisei._log import logger
from keisei.config.schema import AppConfig
from keisei.errors import DirectorySetupError, quoted
from keisei.redaction import clean
from keisei.run import find, names, session_file
from keisei.run.claimed import Claimed, Start, enter
from keisei.run.fence import fence
from keisei.run.find import absolute_path, root_of_runs
from keisei.run.layout import (
    EVALUATION_LOG,
    MODELS,
    RECORD_FILE,
    TRAINING_LOG,
    RunPaths,
    plan_paths,
)
from keisei.run.lease import LeaseSource
from keisei.run.owned import OwnedRun, now, this_owner
from keisei.run.rebuild import rebuilt_record, salvaged_owner
from keisei.run.resuming import config_changes
from keisei.run.session_file import LaunchRecord, SessionRecord

TEMPORARY = re.compile(
    r"\.(session|(effective_config|config_origins)(\.attempt-\d+)?|provenance\.\d+)\.json(\.\d+)?\.tmp"
    r"|\.code\.\d+\.(diff|tar\.gz)(\.\d+)?\.tmp|\..+\.(log|journal)\.new\.tmp"
)


async def setup_directories(
    config: AppConfig,
    run_name: str,
    session_id: str,
    claimed: Callable[[OwnedRun], object] = lambda owned: None,
    *,
    sync_later: bool = False,
    leases: LeaseSource | None = None,
) -> OwnedRun:
    """Make and claim the run's directories, in one hop.

    Args:
        config: says where runs live, and what to do where this one exists.
        run_name: the run's name.
        session_id: the id to use where the run is new.
        claimed: called on the thread when the run is owned, also where the caller was cancelled
            meanwhile and sees no result.
        sync_later: whether the names that are made are left to `OwnedRun.sync`.
        leases: the registry that keeps leases of runs, where there is one.

    Raises:
        SessionInUseError: the name is taken.
        DirectorySetupError: a directory cannot be made or written.
    """

    def work() -> OwnedRun:
        owned = claim(config, run_name, session_id, sync_later=sync_later, leases=leases)
        claimed(owned)
        return owned

    return await files.in_thread(work)


def claim(
    config: AppConfig,
    run_name: str,
    session_id: str,
    *,
    sync_later: bool = False,
    launch: LaunchRecord | None = None,
    leases: LeaseSource | None = None,
) -> OwnedRun:
    """Make and claim the run's directories, blocking; see `setup_directories`.

    Args:
        config: says where runs live, and what to do where this one exists.
        run_name: the run's name.
        session_id: the id to use where the run is new.
        sync_later: whether the names that are made are left to `OwnedRun.sync`.
        launch: the launch that the session belongs to; a run of an earlier start of it goes on.
        leases: the registry that keeps leases of runs, where there is one.
    """
    start = Start(config, run_name, session_id, launch, leases, sync_later)
    logging_config = config.logging
    models = os.environ.get("KEISEI_MODEL_DIR") or logging_config.model_dir
    place = run_name
    try:
        place = root = root_of_runs(configured=logging_config.log_dir)
        model_root = absolute_path(models) if models else None
        return _claim(start, root, model_root)
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
        root = absolute_path(fallback)
        owned = _claim(start, root, None)
    except OSError as exc:
        raise DirectorySetupError(
            f"cannot set up the directories of run {run_name}: {quoted(failed, 300)}: {reason}; "
            f"nor in logging.fallback_dir {quoted(str(fallback), 300)}: {exc.strerror or exc}",
            path=str(fallback),
        ) from shown(exc)
    owned.fallback_reason = f"{failed}: {reason}"
    return owned


def shown(exc: Exception) -> Exception:
    """Return an error as it may stand in a traceback: a path can hold a secret."""
    if isinstance(exc, OSError) and exc.filename is not None:
        return OSError(exc.errno, exc.strerror, clean(exc.filename))
    return exc


def _claim(start: Start, root: str, model_root: str | None) -> OwnedRun:
    """Make and claim the first directory that may be taken: the name's, or a numbered one."""
    name, number = start.run_name, 1
    while True:
        paths = plan_paths(root, model_root, name)
        unsynced: list[str] | None = [] if start.sync_later else None
        made = files.make_directory(paths.run_artifact_dir, unsynced)
        try:
            owned = _take(start, paths, name, unsynced, made=made)
        except OSError:
            if made:
                _unmake(paths)
            raise
        if owned is not None:
            return owned
        number += 1
        name = names.numbered(start.run_name, number)


def _take(
    start: Start, paths: RunPaths, name: str, unsynced: list[str] | None, *, made: bool
) -> OwnedRun | None:
    """Take a directory and hold it open; ``None`` where the next number is to be tried."""
    with files.OpenDirectory(paths.run_artifact_dir) as directory, ExitStack() as held:
        broken = enter(start, name, directory, held)
        if not directory.stands():  # it went to the trash while this start waited
            raise FileNotFoundError(errno.ENOENT, "it has just been moved", directory.path)
        earlier = _read_record(directory, paths, made=made)
        claimed = Claimed(start, paths, name, directory, earlier, made, broken)
        owned = None
        try:
            owned = _taken(claimed, unsynced, held)
            return owned
        finally:
            if owned is None and claimed.lease is not None:
                claimed.lease.release()


def _taken(claimed: Claimed, unsynced: list[str] | None, held: ExitStack) -> OwnedRun | None:
    """Take a directory; ``None`` where the next number is to be tried."""
    directory, earlier, made = claimed.directory, claimed.earlier, claimed.made
    paths, name, config = claimed.paths, claimed.name, claimed.start.config
    if not session_file.may_take(
        earlier,
        made=made,
        alive=claimed.alive,
        if_exists=claimed.if_exists,
        path=paths.run_artifact_dir,
    ):
        return None
    home = HeldDirectory(directory.path)
    if not claimed.lock(home):
        return None
    if earlier is None and not made:  # its maker may have died before it could do this
        if unsynced is None:
            files.sync_directory(os.path.dirname(paths.run_artifact_dir))
        else:
            unsynced.append(os.path.dirname(paths.run_artifact_dir))
    changed = [] if earlier is None else config_changes(config, name, directory)
    new = made and earlier is None  # so that nothing stands in it
    for left in filter(TEMPORARY.fullmatch, claimed.names):  # by a start that died
        directory.unlink(left)
    _make_models(directory, paths, unsynced)
    logs = (EVALUATION_LOG,) if new else (TRAINING_LOG, EVALUATION_LOG)
    torn = [files.append(directory, log, b"") for log in logs]
    if any(torn):
        logger.warning("a torn last line in a log of run %s was closed", name)
    known = {"locked": home.locked, "timeout": config.logging.owner_timeout}
    record = SessionRecord(
        session_id=claimed.session_id,
        run_name=name,
        attempt=claimed.attempt,
        status="running",
        owner=this_owner().model_copy(update=known),
        started_at=now(),
        paths=paths.as_text(),
        trackers={},
        launch=claimed.start.launch,
        started_by=session_file.started_by(earlier, claimed.start.launch),
        lease=None if claimed.lease is None else claimed.lease.lease,
        fencing=claimed.fencing,
    )
    home.mark = directory.mark = claimed.mark
    files.write_atomic(directory, RECORD_FILE, record.text(), sync_name=unsynced is None)
    if record.fencing:
        fence(directory, paths.model_dir, record.fencing, held)
        for log in logs:
            files.append(directory, log, b"")  # half a line of theirs may be in the copy
        record = record.model_copy(update={"fencing": ()})
        files.write_atomic(directory, RECORD_FILE, record.text(), sync_name=unsynced is None)
    home.hold(directory)
    return OwnedRun(
        paths,
        record,
        home,
        earlier,
        changes=changed,
        torn_lines=sum(torn),
        unsynced=unsynced,
        lease=claimed.lease,
    )


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
        if owner is not None and find.owner_state(owner, directory) != "died":
            raise session_file.in_use(name, owner, paths.run_artifact_dir)
        kept = directory.set_aside(RECORD_FILE, "corrupt")
        where = quoted(os.path.join(directory.path, kept), 300)
        logger.warning("the record of run %s was corrupt, and is set aside as %s", name, where)
    record = rebuilt_record(find.own_lines(directory), name, paths.as_text())
    if record is not None:
        logger.warning("the record of run %s was rebuilt from its training log", name)
    return record


def _make_models(
    directory: files.OpenDirectory, paths: RunPaths, unsynced: list[str] | None
) -> None:
    """Make the models' directory; one that stands there is no file, and no link elsewhere."""
    if os.path.dirname(paths.model_dir) == directory.path:
        made = directory.make(os.path.basename(paths.model_dir), sync=False)  # with session.json
    else:
        made = files.make_directory(paths.model_dir, unsynced)
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
