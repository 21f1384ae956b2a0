"""TensorBoard: a run as event files, written without TensorBoard's own writer.

Each `send` is one batch in a file, and ends with a mark that says which record it ends with: a
session log of kind CHECKPOINT, which TensorBoard passes over. What stands behind the last mark is
of a `send` that did not return, and is cut before anything else is written. So the events and the
position can never disagree, whenever the process dies or the disk fails.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from keisei._io import files
from keisei.journal.reader import Event, Row
from keisei.journal.superseding import RESUME, step_in
from keisei.redaction import clean
from keisei.run.status import FinalStatus
from keisei.trackers.base import Position, Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.tensorboard.event_file import EventFile
from keisei.trackers.tensorboard.events import Batch, import_protos, session_log_of

_EVENTS = "events.out.tfevents"
_CLAIM = ".keisei-run"  # holds the id of the run whose directory it is
_MARK = "keisei's cursor: "
_LARGEST_STEP = 2**63 - 1  # as the format has it


class TensorBoardTracker(Tracker):
    """Writes event files, for `tensorboard --logdir runs` and whatever else reads them.

    A row is an event with its time and step and all its values, which the format rounds to 32
    bits: what is beyond them is shown as infinite. A row without a step stands at the last step
    before it, and before the first step such rows are counted. What `log_event` logged, the
    config and the status are texts under `keisei/`, and the config is there as hyperparameters,
    too. An attempt that begins at an earlier step makes TensorBoard drop what came after that.

    Args:
        log_dir: where to make the run's directory, ``{log_dir}/{run_name}``, which gets the run's
            id behind its name where that is another run's; ``None`` for ``tensorboard`` in the
            run's own.
    """

    name = "tensorboard"

    def __init__(self, log_dir: str | os.PathLike[str] | None = None) -> None:
        self.log_dir = None if log_dir is None else os.path.realpath(log_dir)

    def start(self, run: RunInfo) -> TensorBoardRun:
        """Open the attempt's event file, cut what an earlier process left torn, and resume there.

        Raises:
            MissingExtraError: TensorBoard is not installed.
            OSError: the files cannot be read or written.
        """
        import_protos()
        above, name = run.directory, "tensorboard"
        if self.log_dir is not None:
            files.make_directory(self.log_dir)
            above, name = self.log_dir, run.run_name
        with files.OpenDirectory(above) as parent:
            if self.log_dir is not None and not _claim(parent, name, run.session_id):
                name = f"{name}-{run.session_id}"
            parent.make(name)
        with files.OpenDirectory(os.path.join(above, name)) as directory:
            return TensorBoardRun(directory, run)


def _claim(parent: files.OpenDirectory, name: str, session_id: str) -> bool:
    """Return whether a run's files belong into a directory of its name, which may be another run's.

    TensorBoard takes what is in one directory for one run.
    """
    parent.make(name)
    with files.OpenDirectory(os.path.join(parent.path, name)) as directory:
        events = [found for found in directory.names() if _EVENTS in found]
        if any(f"{_EVENTS}.{session_id}." in found for found in events):
            return True
        if events:
            return False
        with suppress(FileExistsError):  # the file decides between two that start at once
            fd = directory.open(_CLAIM, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with open(fd, "wb") as file:
                file.write(session_id.encode())
        return directory.read(_CLAIM) == session_id.encode()


class TensorBoardRun(TrackerRun):
    """A run as event files.

    Args:
        directory: where the files live.
        info: what the tracker is told of the run.
    """

    mode = "offline"

    def __init__(self, directory: files.OpenDirectory, info: RunInfo) -> None:
        self.run_id, self.directory = info.session_id, directory.path
        self._info = info
        # A reader goes through the files in the order of their names, and never back.
        prefix = f"{_EVENTS}.{info.session_id}."
        own = re.compile(re.escape(prefix) + r"\d{6,}")
        names = {name for name in directory.names() if own.fullmatch(name)}
        last, *earlier = sorted({*names, f"{prefix}{info.attempt:06}"}, reverse=True)
        self._file = EventFile(directory, last)
        try:
            found = self._file.recover(_parse_mark)
            for name in earlier if found is None else ():
                with EventFile(directory, name) as file:
                    if (found := file.recover(_parse_mark)) is not None:
                        break
            self._progress = found or _Progress()
            if not self._file.size:
                self._begin(fresh=found is None)
        except BaseException:
            self._file.close()
            raise

    def send(self, records: Sequence[Record]) -> None:
        """Write the records; they survive the end of this process when it returns.

        Raises:
            OSError: they could not be written.
            TrackerError: the run has ended.
        """
        if not records:
            return
        batch = Batch()
        progress = self._progress
        for record in records:
            if isinstance(record, Event):
                if record.name == RESUME:
                    _add_resume(batch, record)
                data = json.dumps(record.data, indent=1, ensure_ascii=False)
                name, text = f"events/{clean(record.name)}", _code(clean(data))
                batch.add_text(record.time, progress.shown_step, name, text)
            else:
                progress = self._add_row(batch, progress, record)
            progress = progress._replace(attempt=record.attempt, seq=record.seq)
        self._write(batch, progress)

    def position(self) -> Position:
        """Return the position of the last record that is written."""
        return Position(self._progress.attempt, self._progress.seq)

    def finish(self, status: FinalStatus) -> None:
        """Write how the run ended, and close the file; only the first call does anything."""
        if self._file.closed:
            return
        try:
            batch, now, step = Batch(), time.time(), self._progress.shown_step
            batch.add_text(now, step, "status", status)
            batch.add(now, step, session_log={"status": "STOP"})
            self._write(batch, self._progress)
        finally:
            self._file.close()

    def _begin(self, *, fresh: bool) -> None:
        batch, now = Batch(), time.time()
        # With this version a START, and nothing else, makes TensorBoard drop what is superseded;
        # it takes a first one for the beginning of the run.
        batch.add(now, 0, file_version="brain.Event:2")
        if fresh:
            batch.add(now, 0, session_log={"status": "START"})
            batch.add_hyperparameters(now, self._info.session_id, self._info.config_text)
            self._add_config(batch, now, 0)
        self._write(batch, self._progress)

    def _add_row(self, batch: Batch, progress: _Progress, row: Row) -> _Progress:
        if row.step is None:
            if not progress.begun:
                progress = progress._replace(step=progress.step + 1)
        else:
            step = max(-_LARGEST_STEP, min(row.step, _LARGEST_STEP))
            restarted = 0 < progress.begun < row.attempt
            progress = progress._replace(step=step, begun=row.attempt)
            if restarted and row.attempt == self._info.attempt:
                self._add_config(batch, row.time, step)
        if row.values:
            batch.add_values(row.time, progress.step, row.values)
        return progress

    def _add_config(self, batch: Batch, moment: float, step: int) -> None:
        batch.add_text(moment, step, "config", _code(self._info.config_text))

    def _write(self, batch: Batch, progress: _Progress) -> None:
        mark = {"status": "CHECKPOINT", "msg": _MARK + json.dumps(progress)}
        batch.add(time.time(), progress.shown_step, session_log=mark)
        self._file.append(batch.data())
        self._progress = progress


def _add_resume(batch: Batch, event: Event) -> None:
    """Make TensorBoard drop what stands behind the step at which the run was resumed."""
    step = step_in(event.data) if isinstance(event.data, dict) else None
    if step is not None:
        behind = max(-_LARGEST_STEP, min(step + 1, _LARGEST_STEP))
        batch.add(event.time, behind, session_log={"status": "START"})


class _Progress(NamedTuple):
    """How far a run's files have got, as the marks keep it.

    Attributes:
        attempt: the attempt of the last record.
        seq: its number there.
        step: the step at which the last row stands.
        begun: the last attempt that has had a row with a step; 0 where there is none.
    """

    attempt: int = 1
    seq: int = -1
    step: int = -1
    begun: int = 0

    @property
    def shown_step(self) -> int:
        """The step at which texts stand."""
        return max(0, self.step)


def _parse_mark(data: bytes) -> _Progress | None:
    """Return what a mark says; ``None`` for any other event."""
    if _MARK.encode() not in data:
        return None
    text = session_log_of(data)
    return _Progress(*json.loads(text.removeprefix(_MARK))) if text.startswith(_MARK) else None


def _code(text: str) -> str:
    return f"```json\n{text}\n```"
