"""Repair what is safe to repair of a run. Nothing is deleted: what is in the way is set aside.

A repair works under the run's lock, as a start does, and on what it finds there once it has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

from keisei._io import files, locks
from keisei.run import find
from keisei.run.find import reason
from keisei.run.health import Diagnosis, Finding, Kind, examine, rebuilt, right_mode
from keisei.run.layout import RECORD_FILE, TRAINING_LOG
from keisei.run.log_lines import gone_line
from keisei.run.owned import now
from keisei.run.session_file import Owner


def repair(run: Diagnosis, gone: Collection[str] = ()) -> Diagnosis:
    """Repair what is safe to repair of a run, under its lock.

    A run whose owner lives, or may live on another host, is left alone.

    Args:
        run: its diagnosis.
        gone: other hosts that are known to be gone, with whatever ran there.

    Returns:
        The new diagnosis, with what has been repaired.
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
    repairs = _Repairs(directory, run)
    done: list[str] = []
    failed: list[Finding] = []
    for kind, act in repairs.by_kind.items():
        for finding in run.findings:
            if finding.kind == kind and finding.weight == "repairable":
                try:
                    done.append(act(finding.file))
                except OSError as exc:
                    text = f"not repaired: {reason(exc)}"
                    failed.append(Finding("repair", finding.file, text))
    after = examine(directory, gone) or run
    return replace(after, findings=(*after.findings, *failed), repairs=tuple(done))


class _Repairs:
    """The repairs of one run; each takes the name of a file and returns what it has done.

    Args:
        directory: the run's directory, whose lock is held.
        run: its diagnosis.
    """

    def __init__(self, directory: files.OpenDirectory, run: Diagnosis) -> None:
        self._directory, self._run = directory, run
        self._last_sign = _last_sign(directory)
        # In this order: a session file is written by way of a temporary one.
        self.by_kind: dict[Kind, Callable[[str], str]] = {
            "temporary": self._keep_temporary,
            "log": self._close_log,
            "mode": self._set_mode,
            "owner": self._record_end,
            "session file": self._rebuild,
        }

    def _keep_temporary(self, file: str) -> str:
        return f"{file} is kept as {self._directory.set_aside(file, 'leftover')}"

    def _close_log(self, file: str) -> str:
        files.append(self._directory, file, b"")  # which closes a torn last line
        return f"{file}: its last line has got its newline"

    def _set_mode(self, file: str) -> str:
        mode = right_mode(os.lstat(os.path.join(self._directory.path, file)).st_mode)
        self._directory.set_mode(file, mode)
        return f"{file}: its mode is {mode:04o}"

    def _record_end(self, file: str) -> str:
        assert self._run.record is not None
        ended = {"status": "failed", "ended_at": self._last_sign}
        record = self._run.record.model_copy(update=ended)
        files.write_atomic(self._directory, RECORD_FILE, record.text())
        self._log_end(record.owner)
        who = f"its owner, process {record.owner.pid} on host {record.owner.host}, is gone"
        return f"{who}: it is recorded as failed at its last sign of life, {self._last_sign}"

    def _rebuild(self, file: str) -> str:
        record = rebuilt(self._directory)
        assert record is not None
        how = f"is rebuilt from {TRAINING_LOG}"
        if self._run.state == "corrupt":
            kept = self._directory.set_aside(RECORD_FILE, "corrupt")
            how += f"; the old one is kept as {kept}"
        logged = record.ended_at is not None
        if not logged:
            record = record.model_copy(update={"ended_at": self._last_sign})
        files.write_atomic(self._directory, RECORD_FILE, record.text())
        if not logged:
            self._log_end(None)
        return f"{RECORD_FILE} {how}"

    def _log_end(self, owner: Owner | None) -> None:
        line = gone_line(now(), self._run.name, self._last_sign, owner)
        files.append(self._directory, TRAINING_LOG, f"{line}\n".encode())


def _last_sign(directory: files.OpenDirectory) -> str:
    """Return when a run last showed life, ISO 8601 with offset."""
    seen = datetime.fromtimestamp(find.last_sign(directory))
    return seen.astimezone().isoformat(timespec="milliseconds")
