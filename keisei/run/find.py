"""Find runs on disk: under which root they live, which one is meant, and whether its owner lives.

Nothing is changed, no symlink is followed, and nothing is opened that could block.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

from keisei._io import files, process
from keisei.errors import quoted
from keisei.run.layout import CONFIG_FILE, MODELS, RECORD_FILE, TRAINING_LOG
from keisei.run.rebuild import salvaged_owner
from keisei.run.session_file import Owner, SessionRecord
from keisei.run.status import FINAL

State = Literal[
    "running",
    "died",
    "elsewhere",
    "completed",
    "failed",
    "cancelled",
    "preempted",
    "corrupt",
    "no session file",
    "unreadable",
]

DEFAULT_ROOT = "runs"
_SIGNS = (TRAINING_LOG, CONFIG_FILE, MODELS)  # by which a run without a session file is known
_WAYS_OUT = "--root or KEISEI_LOG_DIR says where runs live"
_LARGEST = 64 * 2**20  # bytes of a JSON file that is still read
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
            (`${NAME}`, a leading `$`) is not resolved, or the working directory that it is
            relative to has been removed.
    """
    text = os.fspath(path)
    try:
        legal = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        legal = False
    if not legal:
        raise OSError(errno.EINVAL, "no path can hold one of its characters", text)
    if text.startswith("$") or "${" in text:
        raise OSError(errno.ENOENT, "a reference to a variable is not resolved", text)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise OSError(errno.ENOENT, "no home directory is known for its ~", text)
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
    """Return the run in a directory that is held open; ``None`` where it is none of a run's."""
    run = FoundRun(os.path.basename(directory.path), directory.path, "no session file")
    try:
        text = read_file(directory, RECORD_FILE)
    except FileNotFoundError:
        return run if any(map(directory.holds, _SIGNS)) else None
    except OSError as exc:
        return replace(run, state="unreadable", problem=reason(exc))
    record = SessionRecord.parsed(text)
    if record is not None and record.status in FINAL:
        return replace(run, state=record.status, record=record)
    owner = salvaged_owner(text) if record is None else record.owner
    life = "died" if owner is None else owner_state(owner, gone)
    state = "corrupt" if record is None else life
    live_owner = None if life == "died" else owner
    return replace(run, state=state, record=record, live_owner=live_owner)


def owner_state(
    owner: Owner, gone: Collection[str] = ()
) -> Literal["running", "died", "elsewhere"]:
    """Return whether a run's owner lives; on another host it may, unless that is known to be gone.

    Args:
        owner: the process that owns the run.
        gone: other hosts that are known to be gone.
    """
    if owner.host != process.host_name():
        return "died" if owner.host in gone else "elsewhere"
    return "running" if process.process_start(owner.pid) == owner.process_start else "died"


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
