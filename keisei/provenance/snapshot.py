"""The snapshot of an attempt: its code, packages, machine and command line, beside the run.

    provenance.N.json   what attempt N was started from
    code.N.diff         the difference to the commit, for people
    code.N.tar.gz       the files that differ from the commit, to restore them

Sessions of a program that begin while a snapshot of the code is being taken share the next one.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from keisei._io import files
from keisei._io.forks import after_in_child
from keisei._io.switching import quick_switches
from keisei._log import logger
from keisei.config.changes import Change
from keisei.errors import TakenOverError, describe
from keisei.provenance.archive import packed
from keisei.provenance.code import Code, code_state
from keisei.provenance.comparison import differences
from keisei.provenance.git import NO_GIT
from keisei.provenance.machine import command, machine
from keisei.provenance.packages import packages
from keisei.redaction import secret_values
from keisei.run.owned import OwnedRun, now

FORMAT = 1

_said = set[str]()

_Key = tuple[str, tuple[str, ...], float, int, int]


@dataclass(frozen=True)
class Task:
    """What is to be recorded of one attempt.

    Attributes:
        run_name: the run's name.
        attempt: which attempt of it.
        outside: directories that hold no code, such as where runs live.
        timeout: how long git may take, in seconds.
        largest_file: the largest file that is kept, in bytes.
        largest_total: how much is kept in all, in bytes.
        changes: what the attempt's config changes of the earlier one's.
    """

    run_name: str
    attempt: int
    outside: tuple[str, ...]
    timeout: float
    largest_file: int
    largest_total: int
    changes: tuple[Change, ...]


def record_name(attempt: int) -> str:
    """Return the name of the file that says what an attempt was started from."""
    return f"provenance.{attempt}.json"


def diff_name(attempt: int) -> str:
    """Return the name of the file with an attempt's diff."""
    return f"code.{attempt}.diff"


def archive_name(attempt: int) -> str:
    """Return the name of the archive of an attempt's changed files."""
    return f"code.{attempt}.tar.gz"


def take(task: Task, owned: OwnedRun) -> None:
    """Record what an attempt is started from; blocks, and raises nothing: one warning says it.

    Args:
        task: what is to be recorded.
        owned: the run's directory.
    """
    try:
        with quick_switches():
            _take(task, owned)
    except TakenOverError:
        pass  # that was logged
    except Exception as exc:  # noqa: BLE001 - whatever it is, the training goes on
        text = "what run %s was started from is not recorded: %s"
        logger.warning(text, task.run_name, describe(exc))


def _take(task: Task, owned: OwnedRun) -> None:
    secrets = secret_values(os.environ)
    code = _shared.state(task, secrets)
    about: dict[str, Any] = {
        "format": FORMAT,
        "attempt": task.attempt,
        "taken_at": now(),
        "code": code.about,
        "command": command(),
        "machine": machine(),
        "packages": packages(),
        "config_changes": [asdict(change) for change in task.changes],
    }
    if (problem := code.about.get("problem")) is not None and problem not in _said:
        _said.add(problem)
        level = logging.INFO if problem == NO_GIT else logging.WARNING
        logger.log(level, "the code of run %s is not recorded: %s", task.run_name, problem)
    if code.kept:
        _write(owned, archive_name(task.attempt), packed(code.kept))
    if code.diff:
        _write(owned, diff_name(task.attempt), code.diff)
    earlier = _earlier(task, owned)
    if earlier is not None:
        about["differs"] = found = differences(earlier, about)
        if found:
            logger.info("run %s goes on with other %s", task.run_name, "; ".join(found))
    text = json.dumps(about, indent=1, ensure_ascii=False)
    _write(owned, record_name(task.attempt), text.encode("utf-8", "backslashreplace") + b"\n")


def _write(owned: OwnedRun, name: str, data: bytes) -> None:
    with owned.home.entered() as directory:
        files.write_atomic(directory, name, data)


def _earlier(task: Task, owned: OwnedRun) -> Mapping[str, Any] | None:
    """Return what the last attempt that has a record was started from."""
    with suppress(OSError, ValueError, RecursionError), owned.home.entered() as directory:
        for attempt in range(task.attempt - 1, max(0, task.attempt - 20), -1):
            if (text := directory.read(record_name(attempt))) is not None:
                found = json.loads(text)
                return found if isinstance(found, dict) else None
    return None


class _Shared:
    """Takes the state of the code for one session after the other, or once for all that wait."""

    def __init__(self) -> None:
        self._alone = threading.Lock()
        self._waiting = 0
        self._known: tuple[_Key, float, Code] | None = None

    def state(self, task: Task, secrets: tuple[str, ...]) -> Code:
        """Return the state of the code as it is now, or was after this was asked for."""
        asked = time.monotonic()
        directory = os.getcwd()
        limits = task.timeout, task.largest_file, task.largest_total
        key = directory, task.outside, *limits
        self._waiting += 1
        if not self._alone.acquire(timeout=task.timeout):
            self._waiting -= 1
            return Code({"problem": "git, or the disk, has not answered another session"})
        try:
            if self._known is None or self._known[0] != key or self._known[1] < asked:
                begun = time.monotonic()
                self._known = key, begun, code_state(directory, task.outside, secrets, *limits)
            return self._known[2]
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._known = None  # it may be large
            self._alone.release()


_shared = _Shared()


def _begin_anew() -> None:
    global _shared
    _shared = _Shared()


after_in_child(_begin_anew)
