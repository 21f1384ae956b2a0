"""Find runs on disk: under which root they live, which one is meant, and whether its owner lives.

Nothing is changed, no symlink is followed, and nothing is opened that could block.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

import pydantic_core

from keisei._io import files, locks, process
from keisei._io.directories import LARGEST_READ
from keisei.config.references import problem_of_path
from keisei.errors import quoted
from keisei.journal.format import attempt_of
from keisei.run.layout import EVALUATION_LOG, RECORD_FILE, TRAINING_LOG
from keisei.run.rebuild import UNKNOWN, has_start, salvaged_owner
from keisei.run.session_file import Owner, SessionRecord
from keisei.run.status import FINAL

State = Literal[
    "running",
    "died",
    "elsewhere",
    "lost",  # known from a registry alone
    "completed",
    "failed",
    "cancelled",
    "preempted",
    "corrupt",
    "no session file",
    "unreadable",
]

DEFAULT_ROOT = "runs"
_WAYS_OUT = "--root or KEISEI_LOG_DIR says where runs live"
_LARGEST = LARGEST_READ  # bytes of a JSON file that is still read, and of a log
_LINE_MARKS = (b"] session started: run ", b"] session ended: run ")
_LONGEST_LINE = 4096  # bytes: keisei's own lines are far shorter
_FILE_TYPES = {
    stat.S_IFREG: "a file",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True)
class FoundRun:
    """A run's directory, and what its session file says.

    Attributes:
        name: the directory's name.
        directory: its absolute path.
        state: how the run stands.
        record: what the session file holds, where it can be read.
        live_owner: the owner, where it lives or may live.
        problem: why the run is `unreadable`.
    """

    name: str
    directory: str
    state: State
    record: SessionRecord | None = None
    live_owner: Owner | None = None
    problem: str = ""


def root_of_runs(
    option: str | None = None, configured: str | os.PathLike[str] | None = None
) -> str:
    """Return the directory under which runs live, as an absolute path.

    The first of these that is set: the option, ``KEISEI_LOG_DIR``, the config's directory,
    ``runs``.

    Args:
        option: the option `--root` of a command.
        configured: `logging.log_dir` of a session's config.

    Raises:
        OSError: no directory can have that path.
    """
    return absolute_path(option or os.environ.get("KEISEI_LOG_DIR") or configured or DEFAULT_ROOT)


def absolute_path(path: str | os.PathLike[str]) -> str:
    """Return the absolute path; a leading ``~`` is the home directory.

    Raises:
        OSError: it holds a character that no path can hold, there is no such home, a reference
            (`${NAME}`, `$NAME`) is not resolved, or the working directory that it is
            relative to has been removed.
    """
    text = os.fspath(path)
    try:
        legal = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        legal = False
    if not legal:
        raise OSError(errno.EINVAL, "no path can hold one of its characters", text)
    expanded = os.path.expanduser(text)
    if (problem := problem_of_path(expanded)) is not None:
        raise OSError(errno.ENOENT, problem, text)
    try:
        return os.path.abspath(expanded)
    except FileNotFoundError as exc:
        raise OSError(exc.errno, "the working directory has been removed", text) from exc


def find_runs(root: str, wanted: Iterable[str] = (), gone: Collection[str] = ()) -> list[FoundRun]:
    """Return the runs under a root, sorted by name, or those that are wanted, in their order.

    Args:
        root: the absolute path of the directory under which runs live.
        wanted: names of runs under the root, or paths of their directories; all where empty.
        gone: other hosts that are known to be gone, with whatever ran there.

    Raises:
        FileNotFoundError: a wanted run is not there, or the root is not; the message says where
            it was looked for, and what is there.
        OSError: the root, or a wanted run, cannot be read.
    """
    if names := list(wanted):
        found = [find_run(root, name, gone) for name in names]
        return list({run.directory: run for run in found}.values())
    try:
        return _all_runs(root, gone)
    except FileNotFoundError as exc:
        problem = f"there is no directory {quoted(root, 300)}"
        raise FileNotFoundError(f"{problem}: {_WAYS_OUT}") from exc
    except OSError as exc:
        raise OSError(f"{quoted(root, 300)} cannot be listed: {reason(exc)}") from exc


def _all_runs(root: str, gone: Collection[str] = ()) -> list[FoundRun]:
    with os.scandir(root) as entries:
        paths = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    return [run for path in paths if (run := find_at(path, gone)) is not None]


def find_run(root: str, wanted: str, gone: Collection[str] = ()) -> FoundRun:
    """Return one run, as `find_runs` does.

    Args:
        root: the absolute path of the directory under which runs live.
        wanted: its name under the root, or the path of its directory.
        gone: other hosts that are known to be gone.
    """
    run = locate(root, wanted, gone)
    if run is None:
        raise FileNotFoundError(_no_run(root, wanted))
    return run


def locate(root: str, wanted: str, gone: Collection[str] = ()) -> FoundRun | None:
    """Return one run, as `find_run` does; ``None`` where there is none."""
    try:
        paths = (absolute_path(os.path.join(root, wanted)), absolute_path(wanted))
    except OSError as exc:
        raise FileNotFoundError(f"there is no run {quoted(wanted)}: {reason(exc)}") from exc
    for path in paths:
        if (run := find_at(path, gone)) is not None:
            return run
        if os.path.islink(path):
            problem = f"{quoted(path, 300)} is a symbolic link, and none is followed"
            raise FileNotFoundError(f"{problem}: name the run that it leads to")
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as exc:
            if exc.errno != errno.ENAMETOOLONG:
                raise OSError(f"{quoted(path, 300)} cannot be read: {reason(exc)}") from exc
    return None


def _no_run(root: str, wanted: str) -> str:
    """Return a message that says where a run was looked for, and which runs there are."""
    where = quoted(root, 300)
    there: list[str] = []
    try:
        there = [run.name for run in _all_runs(root)]
        where += ","
    except FileNotFoundError:
        where += ", which does not exist,"
    except OSError as exc:
        where += f", which cannot be listed ({reason(exc)}),"
    import difflib  # only here: this module is behind the front door

    shown = difflib.get_close_matches(wanted, there, 5) or there[:5]
    more = f" and {len(there) - len(shown)} more" if len(there) > len(shown) else ""
    hint = f"There is {', '.join(map(quoted, shown))}{more}" if there else _WAYS_OUT
    return f"there is no run {quoted(wanted)} under {where} nor at that path. {hint}."


def find_at(path: str, gone: Collection[str] = ()) -> FoundRun | None:
    """Return the run in a directory; ``None`` where there is no directory, or none of a run's.

    Args:
        path: the directory's absolute path.
        gone: other hosts that are known to be gone.
    """
    try:
        with files.OpenDirectory(path) as directory:
            return look(directory, gone)
    except OSError as exc:
        return unopened(path, exc)


def unopened(path: str, exc: OSError) -> FoundRun | None:
    """Return the run whose directory could not be opened; ``None`` where there is no directory."""
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return None
    if not is_directory or isinstance(exc, FileNotFoundError):
        return None
    return FoundRun(os.path.basename(path), path, "unreadable", problem=reason(exc))


def look(directory: files.OpenDirectory, gone: Collection[str] = ()) -> FoundRun | None:
    """Return the run in a directory that is held open; ``None`` where it is none of a run's.

    A run has a session file, or a start line of keisei's in its training log; whatever else stands
    there, the directory is another program's.
    """
    run = FoundRun(os.path.basename(directory.path), directory.path, "no session file")
    text: bytes | None = None
    try:
        text = read_file(directory, RECORD_FILE)
    except FileNotFoundError:
        pass
    except OSError as exc:
        if exc.errno == errno.EINVAL and not _has_start_line(directory):
            return None
        return replace(run, state="unreadable", problem=reason(exc))
    record = None if text is None else SessionRecord.parsed(text)
    if record is not None and record.status in FINAL:
        return replace(run, state=record.status, record=record)
    foreign = text is None or (_is_foreign(text) and not _has_journal(directory))
    if foreign and record is None and not _has_start_line(directory):
        return None
    owner = record.owner if record is not None else salvaged_owner(text or b"")
    if owner is None:
        owner = UNKNOWN if locks.is_locked(directory) else None
    life = "died" if owner is None else owner_state(owner, directory, gone)
    live_owner = None if life == "died" else owner
    if record is None:
        state: State = "no session file" if text is None else "corrupt"
        return replace(run, state=state, live_owner=live_owner)
    return replace(run, state=life, record=record, live_owner=live_owner)


def _is_foreign(text: bytes) -> bool:
    """Return whether a file is another program's, which is called as a session file is."""
    try:
        data = pydantic_core.from_json(text)
    except ValueError:  # a damaged one of ours still has a part of what it began with
        return b'"session_id"' not in text
    return not (isinstance(data, dict) and "session_id" in data)


def _has_journal(directory: files.OpenDirectory) -> bool:
    """Return whether a journal of an attempt stands there."""
    return any(attempt_of(name) is not None for name in directory.names())


def _has_start_line(directory: files.OpenDirectory) -> bool:
    """Return whether a training log has a start line of keisei's."""
    with suppress(OSError):
        return has_start(own_lines(directory, _LARGEST))
    return False


def own_lines(directory: files.OpenDirectory, most: int | None = None) -> str:
    """Read keisei's own lines of a training log, however large that is.

    Args:
        directory: the run's directory.
        most: how many bytes to read; ``None`` for all.
    """
    found, begins, size = [], True, 0
    with suppress(FileNotFoundError), open_file(directory, TRAINING_LOG) as log:
        while part := log.readline(_LONGEST_LINE):
            if begins and any(mark in part for mark in _LINE_MARKS):
                found.append(part.rstrip(b"\n"))
            begins = part.endswith(b"\n")
            size += len(part)
            if most is not None and size > most:
                break
    return b"\n".join(found).decode(errors="replace")


def owner_state(
    owner: Owner, directory: files.OpenDirectory, gone: Collection[str] = ()
) -> Literal["running", "died", "elsewhere"]:
    """Return whether a run's owner lives: `elsewhere` where it cannot be seen, and may.

    It has died where its process is seen to be gone, or where it held the directory's lock, under
    this kernel, and nobody does now.

    Args:
        owner: the process that owns the run.
        directory: the run's directory.
        gone: hosts of which it is known that what cannot be seen of them is gone.
    """
    alive = seen(owner)
    if alive is False:
        return "died"
    locked = locks.is_locked(directory)
    if locked:
        return "running"
    same_lock = owner.locked is not None and owner.locked == locks.identity(directory)
    if locked is False and same_lock and under_this_kernel(owner):
        return "died"
    if alive:
        return "running"
    return "died" if owner.host in gone else "elsewhere"


def seen(owner: Owner) -> bool | None:
    """Return whether an owner's process runs; ``None`` where it cannot be seen from here."""
    if under_this_kernel(owner):
        return process.runs(owner.pid, owner.process_start, owner.pid_namespace)
    machine = process.machine()
    if owner.host != process.host_name() or machine is None:
        return None
    if owner.kernel is None:  # in a session file of an earlier version
        return process.runs(owner.pid, owner.process_start, process.pid_namespace())
    return False if owner.machine == machine else None  # it was there before the last boot


def under_this_kernel(owner: Owner) -> bool:
    """Return whether a process runs, or ran, under this kernel."""
    return owner.kernel == f"{owner.host}/{process.kernel()}"


def last_sign(directory: files.OpenDirectory) -> float:
    """Return when a run last showed life, in seconds since the epoch: its files' latest change.

    A tracker's cursor is no sign: its host process may outlive the program.
    """
    times = []
    for name in directory.names():
        if name in (RECORD_FILE, TRAINING_LOG, EVALUATION_LOG) or attempt_of(name):
            with suppress(OSError):
                found = directory.stat(name)
                if found.st_size:  # an empty log may be one that the lock has just made
                    times.append(found.st_mtime)
    return min(max(times, default=time.time()), time.time())


def is_others(path: str) -> bool:
    """Return whether a directory belongs to another user."""
    with suppress(OSError, AttributeError):  # Windows has no user ids
        return os.lstat(path).st_uid != os.geteuid()
    return False


def read_file(directory: files.OpenDirectory, name: str) -> bytes:
    """Read a file of a run, of a size that such a file can have.

    Raises:
        OSError: it is missing, too large, or not a regular file.
    """
    with open_file(directory, name) as file:
        text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return text


def open_file(directory: files.OpenDirectory, name: str) -> BinaryIO:
    """Open a regular file to read it; anything else is an error that says what it is."""
    mode = os.lstat(os.path.join(directory.path, name)).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{file_type(mode)}, where a file should be", name)
    return open(directory.open(name, os.O_RDONLY), "rb")


def file_type(mode: int) -> str:
    """Return what kind of file a mode is of, in words."""
    return _FILE_TYPES.get(stat.S_IFMT(mode), "a device")


def reason(exc: OSError) -> str:
    """Return what an error says, without its number and its path."""
    return exc.strerror or str(exc)
