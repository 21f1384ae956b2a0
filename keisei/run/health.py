"""How a run is: what state it is in, who owns it and whether that owner lives, and what is torn.

Nothing is changed, no symlink is followed, and nothing is opened that could hold the caller.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

import pydantic_core

from keisei._io import files, locks, process
from keisei.errors import InvalidRunNameError
from keisei.run.claim import TEMPORARY, own_lines
from keisei.run.layout import (
    CONFIG_FILE,
    EVALUATION_LOG,
    MODELS,
    RECORD_FILE,
    TRAINING_LOG,
    plan_paths,
)
from keisei.run.rebuild import rebuilt_record, salvaged_owner
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
    "no record",
    "unreadable",
]
Kind = Literal["owner", "record", "log", "temporary", "config", "mode", "tracker", "odd", "repair"]
Weight = Literal["repairable", "problem", "hint"]

_SIGNS = (TRAINING_LOG, CONFIG_FILE, MODELS)  # by which a run without a record is known
_LOGS = (TRAINING_LOG, EVALUATION_LOG)
_CONFIG = re.compile(r"effective_config(\.attempt-\d+)?\.json")
_LARGEST = 64 * 2**20  # bytes of a JSON file that is still read
_HAS_MODES = os.name == "posix"
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True)
class Finding:
    """Something about a run that is worth saying.

    Attributes:
        kind: what it is about.
        file: which file, by its name in the run's directory; empty for the run as a whole.
        text: what is wrong, in words.
        weight: `repairable` and `problem` need attention, a `hint` does not.
    """

    kind: Kind
    file: str
    text: str
    weight: Weight = "problem"


@dataclass(frozen=True)
class Diagnosis:
    """How a run is.

    Attributes:
        name: its directory's name.
        directory: where it is, absolute.
        state: where it is in its life.
        record: its record, where it can be read.
        findings: what is worth saying of it; after a repair, what remains.
        repairs: what has been repaired just now.
    """

    name: str
    directory: str
    state: State
    record: SessionRecord | None = None
    findings: tuple[Finding, ...] = ()
    repairs: tuple[str, ...] = ()

    @property
    def needs_attention(self) -> bool:
        """Whether something about it is not as it should be."""
        return any(finding.weight != "hint" for finding in self.findings)


def diagnose(path: str, gone: Collection[str] = ()) -> Diagnosis | None:
    """Tell how a run is, changing nothing.

    Args:
        path: its directory, absolute.
        gone: other hosts that are known to be gone, with whatever ran there.

    Returns:
        The diagnosis; ``None`` where there is no directory, or none of a run's.
    """
    try:
        with files.OpenDirectory(path) as directory:
            found = examine(directory, gone)
            if found is not None and found.state == "no record":
                # A start may be at work: it holds the lock until its record stands there.
                with suppress(OSError):
                    _opened(directory, TRAINING_LOG).close()
                    with locks.locked(directory, TRAINING_LOG):
                        return examine(directory, gone)
            return found
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        if os.path.islink(path):
            return None
        others = _HAS_MODES and os.lstat(path).st_uid != os.geteuid()
        finding = Finding("odd", "", reason(exc), "hint" if others else "problem")
        return Diagnosis(os.path.basename(path), path, "unreadable", findings=(finding,))


def examine(directory: files.OpenDirectory, gone: Collection[str]) -> Diagnosis | None:
    """Tell how a run is, as `diagnose` does, in its directory that is held open."""
    names = sorted(os.listdir(directory.path))
    run = Diagnosis(os.path.basename(directory.path), directory.path, "no record")
    try:
        if RECORD_FILE in names:
            run, live = _with_record(directory, run, _read(directory, RECORD_FILE), gone)
        elif any(name in names for name in _SIGNS):
            run, live = replace(run, findings=(_lost(directory, "it is missing"),)), False
        else:
            return None
    except OSError as exc:
        finding = Finding("odd", RECORD_FILE, reason(exc))
        return replace(run, state="unreadable", findings=(finding,))
    findings = [*run.findings, *_torn(directory, names, run.record, live=live)]
    if run.state != "no record" or findings[0].weight == "repairable":
        findings += _modes(directory, names)  # otherwise it may be none of a run's
    if live or any(f.kind == "odd" and f.file == TRAINING_LOG for f in findings):
        findings = [  # there is nothing that may be done, or no lock to do it under
            replace(f, weight="problem") if f.weight == "repairable" else f for f in findings
        ]
    return replace(run, findings=tuple(findings))


def _with_record(
    directory: files.OpenDirectory, run: Diagnosis, text: bytes, gone: Collection[str]
) -> tuple[Diagnosis, bool]:
    """Tell a run's state from what stands in `session.json`, and whether it lives or may live."""
    record = SessionRecord.parsed(text)
    if record is None:
        owner = salvaged_owner(text)
        if owner is None or _where(owner, gone) == "died":
            finding, live = _lost(directory, "it is no record"), False
        else:
            whose = f"process {owner.pid} on host {owner.host}"
            problem = f"it is no record, and the owner, {whose}, lives or may live"
            finding, live = Finding("record", RECORD_FILE, problem), True
        return replace(run, state="corrupt", findings=(finding,)), live
    state: State = record.status if record.status in FINAL else _where(record.owner, gone)
    run = replace(run, record=record, state=state)
    if state == "died":
        run = replace(run, findings=(Finding("owner", "", "its owner is gone", "repairable"),))
    return run, state in ("running", "elsewhere")


def _where(owner: Owner, gone: Collection[str]) -> Literal["running", "died", "elsewhere"]:
    if owner.host != process.host_name():
        return "died" if owner.host in gone else "elsewhere"
    return "running" if process.process_start(owner.pid) == owner.process_start else "died"


def _lost(directory: files.OpenDirectory, problem: str) -> Finding:
    """Say that there is no record, and whether one can be rebuilt."""
    try:
        if rebuilt(directory) is not None:
            return Finding("record", RECORD_FILE, problem, "repairable")
        why = f"{TRAINING_LOG} has no start line to rebuild it from"
    except OSError as exc:
        why = f"{TRAINING_LOG} cannot be read: {reason(exc)}"
    except InvalidRunNameError:
        why = "no run can have the directory's name"
    way_out = "start a run of that name, or move it away"
    return Finding("record", RECORD_FILE, f"{problem}, and {why}: {way_out}")


def rebuilt(directory: files.OpenDirectory) -> SessionRecord | None:
    """Rebuild a run's record from its training log; ``None`` where that has no start line."""
    root, name = os.path.split(directory.path)
    has_models = os.path.lexists(os.path.join(directory.path, MODELS))
    model_root = None if has_models else os.environ.get("KEISEI_MODEL_DIR")
    if model_root:
        model_root = os.path.abspath(os.path.expanduser(model_root))
    paths = plan_paths(root, model_root or None, name).as_dict()
    return rebuilt_record(own_lines(directory), name, paths)


def _torn(
    directory: files.OpenDirectory, names: list[str], record: SessionRecord | None, *, live: bool
) -> Iterator[Finding]:
    """Find what a crash has torn; what a living process is writing is none of that."""
    writing = live or (record is not None and _where(record.owner, ()) == "running")
    for name in names:
        try:
            if TEMPORARY.fullmatch(name) and not writing:
                text = "a temporary file that was not finished"
                yield Finding("temporary", name, text, "repairable")
            elif name in _LOGS and _has_torn_end(directory, name) and not live:
                yield Finding("log", name, "its last line has no newline", "repairable")
            elif _CONFIG.fullmatch(name):
                pydantic_core.from_json(_read(directory, name))
            elif name == MODELS:
                mode = os.lstat(os.path.join(directory.path, name)).st_mode
                if not stat.S_ISDIR(mode):
                    yield Finding("odd", name, f"{_kind(mode)}, where a directory should be")
        except FileNotFoundError:
            pass  # the run is at work
        except OSError as exc:
            yield Finding("odd", name, reason(exc))
        except ValueError:
            text = "it is no JSON; the next start keeps it and writes a new one"
            yield Finding("config", name, text)


def _has_torn_end(directory: files.OpenDirectory, name: str) -> bool:
    with _opened(directory, name) as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _modes(directory: files.OpenDirectory, names: list[str]) -> Iterator[Finding]:
    """Find what others than the owner may read, and what the owner may not."""
    ours = [n for n in names if n in (RECORD_FILE, *_LOGS, MODELS) or _CONFIG.fullmatch(n)]
    for name in [".", *ours] if _HAS_MODES else []:
        with suppress(OSError):
            mode = os.lstat(os.path.join(directory.path, name)).st_mode
            expected = stat.S_ISDIR if name in (".", MODELS) else stat.S_ISREG
            if expected(mode) and mode & 0o777 != right_mode(mode):
                text = f"its mode is {mode & 0o777:04o}, not {right_mode(mode):04o}"
                yield Finding("mode", name, text, "repairable")


def right_mode(mode: int) -> int:
    """Give the permissions that a file or a directory of a run's should have."""
    return 0o700 if stat.S_ISDIR(mode) else 0o600


def _read(directory: files.OpenDirectory, name: str) -> bytes:
    with _opened(directory, name) as file:
        text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    return text


def _opened(directory: files.OpenDirectory, name: str) -> BinaryIO:
    """Open a regular file to read; anything else is an error that says what stands there."""
    mode = os.lstat(os.path.join(directory.path, name)).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{_kind(mode)}, where a file should be", name)
    return open(directory.open(name, os.O_RDONLY), "rb")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a file" if stat.S_ISREG(mode) else "a device")


def reason(exc: OSError) -> str:
    """Give what an error says, without the number and the path."""
    return exc.strerror or str(exc)
