"""The snapshot of an attempt: its code, packages, machine and command line, beside the run.

provenance.N.json   what attempt N was started from
code.N.diff         the difference to the commit, for people
code.N.tar.gz       the files that differ from the commit, to restore them
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei._log import logger
from keisei._text import as_lines
from keisei.config.changes import Change
from keisei.provenance.archive import packed
from keisei.provenance.code import Code, code_state
from keisei.provenance.comparison import WARN, differences
from keisei.provenance.git import NO_GIT
from keisei.provenance.machine import command, machine
from keisei.provenance.packages import packages
from keisei.redaction import secret_values
from keisei.run.owned import now

FORMAT = 1

_said = set[str]()


@dataclass(frozen=True)
class Task:
    """What is to be recorded of one attempt.

    Attributes:
        run_name: the run's name.
        directory: the program's working directory.
        attempt: which attempt of it.
        outside: directories that hold no code, such as where runs live.
        timeout: how long git may take, in seconds.
        largest_file: the largest file that is kept, in bytes.
        largest_total: how much is kept in all, in bytes.
        changes: what the attempt's config changes of the earlier one's.
    """

    run_name: str
    directory: str
    attempt: int
    outside: tuple[str, ...]
    timeout: float
    largest_file: int
    largest_total: int
    changes: tuple[Change, ...]

    @property
    def look(self) -> tuple[object, ...]:
        """What decides what is seen: those of the same may share it."""
        limits = self.timeout, self.largest_file, self.largest_total
        return self.directory, self.outside, *limits


def within(directory: str, roots: Iterable[str]) -> tuple[str, ...]:
    """Return those of some directories that lie in the repository of another one; blocks.

    Args:
        directory: a directory, which may be in a repository.
        roots: directories.
    """
    found, here = set(), os.path.realpath(directory)
    for root in map(os.path.realpath, roots):
        try:
            above = os.path.commonpath([here, root])
        except ValueError:  # they are on two drives
            continue
        while not os.path.lexists(os.path.join(above, ".git")):
            if above == os.path.dirname(above):
                break
            above = os.path.dirname(above)
        else:
            found.add(root)
    return tuple(sorted(found))


def record_name(attempt: int) -> str:
    """Return the name of the file that says what an attempt was started from."""
    return f"provenance.{attempt}.json"


def diff_name(attempt: int) -> str:
    """Return the name of the file with an attempt's diff."""
    return f"code.{attempt}.diff"


def archive_name(attempt: int) -> str:
    """Return the name of the archive of an attempt's changed files."""
    return f"code.{attempt}.tar.gz"


@dataclass(frozen=True)
class Seen:
    """What was seen of the code, the packages and the machine, which several attempts may share.

    Attributes:
        code: the state of the code.
        about: the rest, as plain data without secrets.
        archive: the files that differ from the commit, packed; empty where none does.
    """

    code: Code
    about: dict[str, Any]
    archive: bytes


def look(task: Task, stop: threading.Event) -> Seen:
    """Look at the code, the packages and the machine; blocks.

    Args:
        task: what is to be recorded.
        stop: once it is set, git is killed, and the code is not recorded.
    """
    limits = task.timeout, task.largest_file, task.largest_total
    code = code_state(task.directory, task.outside, secret_values(os.environ), *limits, stop)
    about = {
        "taken_at": now(),
        "code": code.about,
        "command": command(),
        "machine": machine(),
        "packages": (installed := packages()),
        "packages_digest": _digest(installed),
    }
    archive = packed(code.kept) if code.kept else b""
    if archive:
        code.about["archive"] = hashlib.sha256(archive).hexdigest()
    return Seen(code, about, archive)


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def write(task: Task, seen: Seen, directory: OpenDirectory) -> dict[str, Any]:
    """Write what an attempt was started from beside the run, and return it in short; blocks.

    It does not wait for the disk: after a loss of power it may be missing, or found damaged.

    Args:
        task: what is to be recorded.
        seen: what was seen.
        directory: the run's directory.

    Raises:
        TakenOverError: another owner has taken the run over.
        OSError: a file cannot be written; each is whole, or not there.
    """
    about = {"format": FORMAT, "attempt": task.attempt, **seen.about}
    about["config_changes"] = [asdict(change) for change in task.changes]
    if (problem := seen.code.about.get("problem")) is not None and problem not in _said:
        _said.add(problem)
        level = logging.INFO if problem == NO_GIT else logging.WARNING
        logger.log(level, "the code of run %s is not recorded: %s", task.run_name, problem)
    if seen.archive:
        files.write_atomic(directory, archive_name(task.attempt), seen.archive, sync=False)
    if seen.code.diff:
        files.write_atomic(directory, diff_name(task.attempt), seen.code.diff, sync=False)
    earlier = _earlier(task, directory)
    if earlier is not None:
        about["differs"] = found = differences(earlier, about)
        if found:
            level = logging.WARNING if any(WARN in text for text in found) else logging.INFO
            logger.log(level, "run %s goes on with other %s", task.run_name, "; ".join(found))
    data = as_lines(about).encode("utf-8", "backslashreplace")
    files.write_atomic(directory, record_name(task.attempt), data, sync=False)
    return _short(about)


def _short(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a session's summary and its journal have of a snapshot."""
    code, machine = about["code"], about["machine"]
    known = {key: code.get(key) for key in ("commit", "branch", "is_dirty")}
    known |= {key: machine.get(key) for key in ("python", "driver")}
    known["packages_digest"] = about["packages_digest"]
    known["differs"] = about.get("differs") or None
    known["problem"] = code.get("problem")
    return {key: value for key, value in known.items() if value is not None}


def _earlier(task: Task, directory: OpenDirectory) -> Mapping[str, Any] | None:
    """Return what the last attempt that has a record was started from."""
    with suppress(OSError, ValueError, RecursionError):
        for attempt in range(task.attempt - 1, max(0, task.attempt - 20), -1):
            if (text := directory.read(record_name(attempt))) is not None:
                found = json.loads(text)
                return found if isinstance(found, dict) else None
    return None
