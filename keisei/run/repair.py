"""The doctor of runs: finds them, tells how they are, and repairs what is safe to repair.

Nothing is deleted: what is in the way is set aside. A repair works under the run's lock, as a
start does, and on what it finds there once it has it.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from keisei._io import files, locks
from keisei.errors import quoted
from keisei.run.claim import now
from keisei.run.health import (
    Diagnosis,
    Finding,
    Kind,
    diagnose,
    examine,
    reason,
    rebuilt,
    right_mode,
)
from keisei.run.layout import RECORD_FILE, TRAINING_LOG
from keisei.run.log_lines import gone_line
from keisei.run.session_file import Owner


def places(root: str, wanted: Iterable[str] = ()) -> list[str]:
    """Give the directories to look at, absolute; among all of a root's may be some of no run.

    Args:
        root: where runs live.
        wanted: names of runs under the root, or paths of their directories; all where empty.

    Raises:
        FileNotFoundError: a wanted run is not there; says where it was looked for, and what is.
        OSError: the root cannot be listed.
    """
    root = os.path.abspath(root)
    names = list(wanted)
    if not names:
        with os.scandir(root) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    return list(dict.fromkeys(_place(root, name) for name in names))


def _place(root: str, name: str) -> str:
    for path in map(os.path.abspath, (os.path.join(root, name), name)):
        if diagnose(path) is not None:
            return path
        if os.path.islink(path):
            problem = f"{quoted(path, 300)} is a symbolic link, and none is followed"
            raise FileNotFoundError(f"{problem}: name the run that it leads to")
    there: list[str] = []
    with suppress(OSError):
        there = [os.path.basename(path) for path in places(root) if diagnose(path) is not None]
    shown = difflib.get_close_matches(name, there, 5) or there[:5]
    listed = ", ".join(map(quoted, shown))
    more = f" and {len(there) - len(shown)} more" if len(there) > len(shown) else ""
    raise FileNotFoundError(
        f"there is no run {quoted(name)} under {quoted(root, 300)}, nor at that path. "
        + (f"There is {listed}{more}." if there else "KEISEI_LOG_DIR or --root names another root.")
    )


def repair(run: Diagnosis, gone: Collection[str] = ()) -> Diagnosis:
    """Repair what is safe to repair of a run, under its lock; nothing is deleted.

    A run whose owner lives, or may live on another host, is left alone.

    Args:
        run: how it is.
        gone: other hosts that are known to be gone, with whatever ran there.

    Returns:
        How the run is now, and what has been repaired.
    """
    if not any(finding.weight == "repairable" for finding in run.findings):
        return run
    try:
        with (
            files.OpenDirectory(run.directory) as directory,
            locks.locked(directory, TRAINING_LOG),
        ):
            again = examine(directory, gone)
            return run if again is None else _repaired(directory, again, gone)
    except OSError as exc:
        failed = Finding("repair", "", f"not repaired: {reason(exc)}")
        return replace(run, findings=(*run.findings, failed))


def _repaired(directory: files.OpenDirectory, run: Diagnosis, gone: Collection[str]) -> Diagnosis:
    seen = _last_sign(directory)
    done: list[str] = []
    failed: list[Finding] = []
    for kind, act in _REPAIRS.items():
        for finding in run.findings:
            if finding.kind == kind and finding.weight == "repairable":
                try:
                    done.append(act(directory, run, finding, seen))
                except OSError as exc:
                    text = f"not repaired: {reason(exc)}"
                    failed.append(Finding("repair", finding.file, text))
    after = examine(directory, gone) or run
    return replace(after, findings=(*after.findings, *failed), repairs=tuple(done))


def _last_sign(directory: files.OpenDirectory) -> str:
    """Tell when a run last showed life, ISO 8601 with offset."""
    times = []
    for name in (TRAINING_LOG, RECORD_FILE):
        with suppress(OSError):
            found = os.lstat(os.path.join(directory.path, name))
            if found.st_size:  # an empty log may be one that the lock has just made
                times.append(found.st_mtime)
    seen = min(max(times, default=time.time()), time.time())
    return datetime.fromtimestamp(seen).astimezone().isoformat(timespec="milliseconds")


def _keep_temporary(
    directory: files.OpenDirectory, run: Diagnosis, finding: Finding, seen: str
) -> str:
    return f"{finding.file} is kept as {directory.set_aside(finding.file, 'leftover')}"


def _close_log(directory: files.OpenDirectory, run: Diagnosis, finding: Finding, seen: str) -> str:
    files.append(directory, finding.file, b"")  # which closes a torn last line
    return f"{finding.file}: its last line has got its newline"


def _set_mode(directory: files.OpenDirectory, run: Diagnosis, finding: Finding, seen: str) -> str:
    mode = right_mode(os.lstat(os.path.join(directory.path, finding.file)).st_mode)
    directory.set_mode(finding.file, mode)
    return f"{finding.file}: its mode is {mode:04o}"


def _end(directory: files.OpenDirectory, run: Diagnosis, finding: Finding, seen: str) -> str:
    assert run.record is not None
    record = run.record.model_copy(update={"status": "failed", "ended_at": seen})
    files.write_atomic(directory, RECORD_FILE, record.text())
    _log_end(directory, run.name, seen, record.owner)
    who = f"its owner, process {record.owner.pid} on host {record.owner.host}, is gone"
    return f"{who}: it is recorded as failed at its last sign of life, {seen}"


def _rebuild(directory: files.OpenDirectory, run: Diagnosis, finding: Finding, seen: str) -> str:
    record = rebuilt(directory)
    assert record is not None
    how = f"is rebuilt from {TRAINING_LOG}"
    if run.state == "corrupt":
        how += f"; the old one is kept as {directory.set_aside(RECORD_FILE, 'corrupt')}"
    logged = record.ended_at is not None
    if not logged:
        record = record.model_copy(update={"ended_at": seen})
    files.write_atomic(directory, RECORD_FILE, record.text())
    if not logged:
        _log_end(directory, run.name, seen, None)
    return f"{RECORD_FILE} {how}"


_Act = Callable[[files.OpenDirectory, Diagnosis, Finding, str], str]
# In this order: a record that is written takes the place of a temporary file.
_REPAIRS: dict[Kind, _Act] = {
    "temporary": _keep_temporary,
    "log": _close_log,
    "mode": _set_mode,
    "owner": _end,
    "record": _rebuild,
}


def _log_end(directory: files.OpenDirectory, name: str, seen: str, owner: Owner | None) -> None:
    files.append(directory, TRAINING_LOG, f"{gone_line(now(), name, seen, owner)}\n".encode())
