"""TensorBoard: a run as event files, written without TensorBoard's own writer.

Each `send` is one batch in a file, and ends with a mark that says which record it ends with: a
session log of kind CHECKPOINT, which TensorBoard passes over. What stands behind the last mark is
of a `send` that did not return, and is cut before anything else is written. So the events and the
position can never disagree, whenever the process dies or the disk fails.

Where a resumed run has left rows behind, a new file takes the place of all earlier ones: it begins
with a START, at which a TensorBoard that has shown the run drops all of it, and then has what of
those files still holds.
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
from keisei.errors import TrackerError
from keisei.journal.reader import Event, Row
from keisei.redaction import clean
from keisei.run.status import FinalStatus
from keisei.trackers.base import Media, Position, Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.tensorboard.event_file import EventFile, held_until, write_joined
from keisei.trackers.tensorboard.events import Batch, import_protos, session_log_of
from keisei.trackers.tensorboard.media import KINDS, add_media

_EVENTS = "events.out.tfevents"
_CLAIM = ".keisei-run"  # holds the id of the run whose directory it is
_MARK = "keisei's cursor: "
_TAKING = re.compile(r"\.\d{6,}\.\d{4,}\Z")
_LARGEST_STEP = 2**63 - 1  # as the format has it


class TensorBoardTracker(Tracker):
    """Writes event files, for `tensorboard --logdir runs` and whatever else reads them.

    A row is an event with its time and step and all its values, which the format rounds to 32
    bits: what is beyond them is shown as infinite. A row without a step stands at the last step
    before it, and before the first step such rows are counted. What `log_event` logged, the
    config and the status are texts under `keisei/`, and the config is there as hyperparameters,
    too. What a resumed run has left behind is dropped.

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
    media = KINDS
    directory: str

    def __init__(self, directory: files.OpenDirectory, info: RunInfo) -> None:
        self.run_id, self.directory = info.session_id, directory.path
        self._info, self.media_left_out = info, 0
        self._first_name = f"{_EVENTS}.{info.session_id}.{info.attempt:06}"
        names = self._names(directory)
        for name in _replaced(names):
            directory.unlink(name)
        names = self._names(directory)
        if max(names, default="") < self._first_name:
            names.append(self._first_name)
        *earlier, last = names
        self._file = EventFile(directory, last)
        try:
            found = self._file.recover(_parse_mark)
            for name in reversed(earlier) if found is None else ():
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
                data = json.dumps(record.data, indent=1, ensure_ascii=False)
                name, text = f"events/{clean(record.name)}", _code(clean(data))
                batch.add_text(record.time, progress.shown_step, name, text)
            elif isinstance(record, Media):
                step = progress.shown_step if record.step is None else record.step
                if not add_media(batch, max(0, min(step, _LARGEST_STEP)), record):
                    self.media_left_out += 1
            else:
                progress = self._add_row(batch, progress, record)
            progress = progress._replace(attempt=record.attempt, seq=record.seq)
        self._write(batch, progress)

    def position(self) -> Position:
        """Return the position of the last record that is written."""
        return Position(self._progress.attempt, self._progress.seq)

    def rewind(self, after: Position) -> bool:
        """Write what stands up to a position to a new file, in place of all earlier ones.

        Raises:
            OSError: it could not be done; what stands there holds.
            TrackerError: the run has ended.
        """
        if self._file.closed:
            raise TrackerError("the run has ended")

        def holds(data: bytes) -> bool | None:
            mark = _parse_mark(data)
            return None if mark is None else (mark.attempt, mark.seq) <= after

        with files.OpenDirectory(self.directory) as directory:
            names = self._names(directory)
            parts: list[tuple[str, int]] = []
            for name in names:
                end, over = held_until(directory, name, holds)
                parts.append((name, end))
                if over:
                    break
            batch = Batch()
            batch.add(time.time(), 0, file_version="brain.Event:2")
            batch.add(time.time(), -_LARGEST_STEP, session_log={"status": "START"})
            if not any(end for _, end in parts):
                self._add_beginning(batch)
            self._add_mark(batch, _Progress())
            number = 1 + max(int(name.partition(self._first_name)[2][1:] or 0) for name in names)
            name = f"{self._first_name}.{number:04}"
            write_joined(directory, name, batch.data(), parts)
            for replaced in names:  # a TensorBoard that has it open would miss it, were it gone
                os.close(directory.open(replaced, os.O_WRONLY | os.O_TRUNC))
            self._file.close()
            self._file = EventFile(directory, name)
        self._progress = self._file.recover(_parse_mark) or _Progress()
        return True

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
            self._add_beginning(batch)
        self._write(batch, self._progress)

    def _add_beginning(self, batch: Batch) -> None:
        now = time.time()
        batch.add_hyperparameters(now, self._info.session_id, self._info.config_text)
        self._add_config(batch, now, 0)

    def _names(self, directory: files.OpenDirectory) -> list[str]:
        """Return the run's event files, in the order in which a reader goes through them."""
        own = re.compile(re.escape(f"{_EVENTS}.{self.run_id}.") + r"\d{6,}(\.\d{4,})?")
        return sorted(name for name in directory.names() if own.fullmatch(name))

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
        self._add_mark(batch, progress)
        self._file.append(batch.data())
        self._progress = progress

    def _add_mark(self, batch: Batch, progress: _Progress) -> None:
        mark = {"status": "CHECKPOINT", "msg": _MARK + json.dumps(progress)}
        batch.add(time.time(), progress.shown_step, session_log=mark)


def _replaced(names: list[str]) -> list[str]:
    """Return the event files that a later one has taken the place of.

    Args:
        names: their names, sorted; the last part of one that takes others' place is a number.
    """
    taking = [at for at, name in enumerate(names) if _TAKING.search(name)]
    return names[: taking[-1]] if taking else []


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
