"""Diagnose a run: its state, whether its owner lives, and what is damaged. Nothing is changed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import pydantic_core

from keisei._io import files, locks
from keisei.errors import InvalidRunNameError
from keisei.run import find
from keisei.run.claim import TEMPORARY
from keisei.run.find import FoundRun, reason
from keisei.run.layout import (
    EVALUATION_LOG,
    MODELS,
    PARTS,
    RECORD_FILE,
    TRAINING_LOG,
    plan_paths,
)
from keisei.run.part_file import state_file
from keisei.run.parts import parts_of
from keisei.run.rebuild import rebuilt_record
from keisei.run.session_file import SessionRecord

Kind = Literal[
    "owner",
    "session file",
    "log",
    "temporary",
    "config",
    "mode",
    "tracker",
    "checkpoint",
    "part",
    "odd",
    "repair",
]
Weight = Literal["repairable", "problem", "hint"]

_LOGS = (TRAINING_LOG, EVALUATION_LOG)
_CONFIG = re.compile(r"effective_config(\.attempt-\d+)?\.json")
_HAS_MODES = os.name == "posix"


@dataclass(frozen=True)
class Finding:
    """Something that was found out about a run.

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
class Diagnosis(FoundRun):
    """A run, and what was found out about it.

    Attributes:
        findings: what was found; after a repair, what remains.
        repairs: what has been repaired just now.
    """

    findings: tuple[Finding, ...] = ()
    repairs: tuple[str, ...] = ()

    @property
    def needs_attention(self) -> bool:
        """Whether anything about the run is not as it should be."""
        return any(finding.weight != "hint" for finding in self.findings)


def diagnose(path: str, gone: Collection[str] = ()) -> Diagnosis | None:
    """Return the diagnosis of a run.

    Args:
        path: the absolute path of its directory.
        gone: other hosts that are known to be gone, with whatever ran there.

    Returns:
        The diagnosis; ``None`` where there is no directory, or none of a run's.
    """
    try:
        with files.OpenDirectory(path) as directory:
            found = examine(directory, gone)
            if found is not None and found.state == "no session file":
                # A start may be at work: it holds the lock until it has written the file.
                with suppress(OSError):
                    find.open_file(directory, TRAINING_LOG).close()
                    with locks.locked(directory, TRAINING_LOG):
                        return examine(directory, gone)
            return found
    except OSError as exc:
        run = find.unopened(path, exc)
        if run is None:
            return None
        weight: Weight = "hint" if find.is_others(path) else "problem"
        return Diagnosis(**vars(run), findings=(Finding("odd", "", run.problem, weight),))


def examine(directory: files.OpenDirectory, gone: Collection[str]) -> Diagnosis | None:
    """Return the diagnosis of the run in a directory that is held open, as `diagnose` does."""
    run = find.look(directory, gone)
    if run is None:
        return None
    if run.state == "unreadable":
        return Diagnosis(**vars(run), findings=(Finding("odd", RECORD_FILE, run.problem),))
    findings = list(_about_session_file(directory, run))
    known = not (run.state == "no session file" and findings[0].weight == "problem")
    findings += _damaged(directory, run)
    if known:  # otherwise the directory may be another program's
        findings += _modes(directory)
        findings += _about_parts(directory, run, gone)
    unlockable = any(f.kind == "odd" and f.file == TRAINING_LOG for f in findings)
    if run.live_owner is not None or unlockable:  # nothing may be repaired
        findings = [
            replace(f, weight="problem") if f.weight == "repairable" else f for f in findings
        ]
    return Diagnosis(**vars(run), findings=tuple(findings))


def _about_session_file(directory: files.OpenDirectory, run: FoundRun) -> Iterator[Finding]:
    if run.state == "died":
        yield Finding("owner", "", "its owner is gone", "repairable")
    elif run.state == "no session file" and run.live_owner is not None:
        problem = "it is missing, and a session that lives writes it again when it ends"
        yield Finding("session file", RECORD_FILE, problem)
    elif run.state == "no session file":
        yield _unusable(directory, "it is missing")
    elif run.state == "corrupt":
        problem = "it is not a valid session file"
        if owner := run.live_owner:
            whose = f", process {owner.pid} on host {owner.host}," if owner.pid else ""
            problem += f", and the owner{whose} lives or may live"
            yield Finding("session file", RECORD_FILE, problem)
        else:
            yield _unusable(directory, problem)


def _unusable(directory: files.OpenDirectory, problem: str) -> Finding:
    """Return the finding for a session file that is lost: whether it can be rebuilt."""
    try:
        if rebuilt(directory) is not None:
            return Finding("session file", RECORD_FILE, problem, "repairable")
        why = f"{TRAINING_LOG} has no start line to rebuild it from"
    except OSError as exc:
        why = f"{TRAINING_LOG} cannot be read: {reason(exc)}"
    except InvalidRunNameError:
        why = "no run can have the directory's name"
    way_out = "start a run of that name, or move it away"
    return Finding("session file", RECORD_FILE, f"{problem}, and {why}: {way_out}")


def rebuilt(directory: files.OpenDirectory) -> SessionRecord | None:
    """Rebuild what the session file held from the training log, which must have a start line."""
    root, name = os.path.split(directory.path)
    model_root = None if directory.holds(MODELS) else os.environ.get("KEISEI_MODEL_DIR")
    paths = plan_paths(root, find.absolute_path(model_root) if model_root else None, name)
    return rebuilt_record(find.own_lines(directory), name, paths.as_text())


def _damaged(directory: files.OpenDirectory, run: FoundRun) -> Iterator[Finding]:
    """Find what a crash has damaged; what a living process is writing is not damaged."""
    alive = run.live_owner is not None
    writing = alive or (run.record is not None and find.seen(run.record.owner) is True)
    for name in sorted(directory.names()):
        try:
            if TEMPORARY.fullmatch(name) and not writing:
                text = "a temporary file that was not finished"
                yield Finding("temporary", name, text, "repairable")
            elif name in _LOGS and _has_torn_end(directory, name) and not alive:
                yield Finding("log", name, "its last line has no newline", "repairable")
            elif _CONFIG.fullmatch(name):
                pydantic_core.from_json(find.read_file(directory, name))
            elif name == MODELS:
                mode = os.lstat(os.path.join(directory.path, name)).st_mode
                if not stat.S_ISDIR(mode):
                    text = f"{find.file_type(mode)}, where a directory should be"
                    yield Finding("odd", name, text)
        except FileNotFoundError:
            pass  # the run is at work
        except OSError as exc:
            yield Finding("odd", name, reason(exc))
        except ValueError:
            text = "it is not valid JSON; the next start keeps it and writes a new one"
            yield Finding("config", name, text)


def _about_parts(
    directory: files.OpenDirectory, run: FoundRun, gone: Collection[str]
) -> Iterator[Finding]:
    """Find the parts of the last attempt of which the process is gone, or the state is lost."""
    if run.record is None:
        return
    try:
        found = parts_of(directory, run.record.attempt, gone)
    except OSError as exc:
        yield Finding("odd", PARTS, reason(exc))
        return
    for part in found:
        name = f"{PARTS}/{state_file(part.attempt, part.part)}"
        if part.state == "died":
            text = "its process is gone, and has recorded no end; what it logged is there"
            yield Finding("part", name, text, "hint")
        elif part.state == "unreadable":
            yield Finding("part", name, "the state of this part cannot be read", "hint")
        elif part.record is not None and part.record.failure is not None:
            yield Finding("part", name, f"it has {part.state}: {part.record.failure}", "hint")


def _has_torn_end(directory: files.OpenDirectory, name: str) -> bool:
    with find.open_file(directory, name) as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _modes(directory: files.OpenDirectory) -> Iterator[Finding]:
    """Find what others than the owner may read, and what the owner may not."""
    for name in [".", *sorted(directory.names())] if _HAS_MODES else []:
        if name in (".", RECORD_FILE, *_LOGS, MODELS) or _CONFIG.fullmatch(name):
            with suppress(OSError):
                mode = os.lstat(os.path.join(directory.path, name)).st_mode
                expected = stat.S_ISDIR if name in (".", MODELS) else stat.S_ISREG
                if expected(mode) and mode & 0o777 != right_mode(mode):
                    text = f"its mode is {mode & 0o777:04o}, not {right_mode(mode):04o}"
                    yield Finding("mode", name, text, "repairable")


def right_mode(mode: int) -> int:
    """Return the permissions that a file or a directory of a run should have."""
    return 0o700 if stat.S_ISDIR(mode) else 0o600
