"""TensorBoard: a run as event files, written with the package's own protos and record format.

Each `send` is one piece of a file, with a mark behind it that says which record it ends with: a
session log of kind CHECKPOINT, which TensorBoard passes over. What stands behind the last mark is
of a `send` that did not return, and is cut before anything else is written. So the events and the
place that was reached can never disagree, whenever the process dies or the disk fails.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from keisei._io import files
from keisei.errors import MissingExtraError, TrackerError
from keisei.journal.reader import Event, Row
from keisei.redaction import clean
from keisei.run.status import FinalStatus
from keisei.trackers.base import Position, Record, RunInfo, Tracker, TrackerRun

_OURS = "keisei/"
_MARK = "keisei's place: "
_LARGEST_STEP = 2**63 - 1  # as the format has it
# Its checksums are made in Python. Without a pause after so many bytes each of the program's other
# threads would wait 5 ms for its turn; so it is 0.7 ms.
_LONGEST_UNBROKEN = 4096


class TensorBoardTracker(Tracker):
    """Writes event files, for `tensorboard --logdir runs` and whatever else reads them.

    A row is an event with its time and step and all its values, which the format rounds to 32
    bits: what is beyond them is shown as infinite. A row without a step stands at the last step
    before it, and before the first step such rows are counted. What `log_event` logged, the
    config and the status are texts under `keisei/`, and the config is there as hyperparameters,
    too. An attempt that begins at an earlier step makes TensorBoard drop what came after that.

    Args:
        log_dir: where to make the run's directory, ``{log_dir}/{run_name}``; ``None`` for
            ``tensorboard`` in the run's own.
    """

    name = "tensorboard"
    apart = True

    def __init__(self, log_dir: str | os.PathLike[str] | None = None) -> None:
        self.log_dir = None if log_dir is None else os.path.realpath(log_dir)

    def start(self, run: RunInfo) -> TensorBoardRun:
        """Begin the attempt's event file, or go on with it; cut what an earlier process left torn.

        Raises:
            MissingExtraError: TensorBoard is not installed.
            OSError: the files cannot be read or written.
        """
        try:
            import tensorboard.plugins.hparams.summary_v2
            import tensorboard.plugins.text.summary_v2
            import tensorboard.summary.writer.record_writer  # noqa: F401
        except ImportError as exc:
            raise MissingExtraError(
                "the TensorBoard tracker needs tensorboard: install it with "
                "`pip install 'keisei[tensorboard]'`"
            ) from exc
        above, name = run.directory, "tensorboard"
        if self.log_dir is not None:
            files.make_directory(self.log_dir)
            above, name = self.log_dir, run.run_name
        with files.OpenDirectory(above) as parent:
            parent.make(name)
        with files.OpenDirectory(os.path.join(above, name)) as directory:
            return TensorBoardRun(directory, run)


class TensorBoardRun(TrackerRun):
    """A run as event files.

    Args:
        directory: where the files live.
        info: what the tracker was told of the run.
    """

    mode = "offline"

    def __init__(self, directory: files.OpenDirectory, info: RunInfo) -> None:
        self.run_id, self.directory = info.session_id, directory.path
        self._info = info
        # A reader goes through the files in the order of their names, and never back.
        prefix = f"events.out.tfevents.{info.session_id}."
        own = re.compile(re.escape(prefix) + r"\d{6,}")
        names = {name for name in directory.names() if own.fullmatch(name)}
        last, *earlier = sorted({*names, f"{prefix}{info.attempt:06}"}, reverse=True)
        found = None
        self._file = _EventFile(directory, last)
        try:
            found = self._file.recover()
            for name in earlier if found is None else ():
                with _EventFile(directory, name) as file:
                    if (found := file.recover()) is not None:
                        break
            self._place = found or _Place()
            if not self._file.size:
                self._begin(fresh=found is None)
        except BaseException:
            self._file.close()
            raise

    def send(self, records: Sequence[Record]) -> None:
        """Write the records; they are with the system when it returns.

        Raises:
            OSError: they could not be written.
            TrackerError: the run has ended.
        """
        if not records:
            return
        batch = _Batch()
        place = self._place
        for record in records:
            if isinstance(record, Event):
                _add_event(batch, place, record)
            else:
                place = self._add_row(batch, place, record)
            place = place._replace(attempt=record.attempt, seq=record.seq)
        self._write(batch, place)

    def position(self) -> Position:
        """Tell the last record that is written."""
        return Position(self._place.attempt, self._place.seq)

    def finish(self, status: FinalStatus) -> None:
        """Write how the run ended, and close the file; only the first call does anything."""
        if self._file.closed:
            return
        try:
            batch, now, step = _Batch(), time.time(), self._place.shown_step
            batch.add_text(now, step, "status", status)
            batch.add(now, step, session_log={"status": "STOP"})
            self._write(batch, self._place)
        finally:
            self._file.close()

    def _begin(self, *, fresh: bool) -> None:
        batch, now = _Batch(), time.time()
        # With this version a START, and nothing else, makes TensorBoard drop what is superseded;
        # it takes a first one for the beginning of the run.
        batch.add(now, 0, file_version="brain.Event:2")
        if fresh:
            batch.add(now, 0, session_log={"status": "START"})
            batch.add(now, 0, summary=self._hyperparameters(now))
            self._add_config(batch, now, 0)
        self._write(batch, self._place)

    def _add_row(self, batch: _Batch, place: _Place, row: Row) -> _Place:
        if row.step is None:
            place = place if place.begun else place._replace(step=place.step + 1)
        else:
            step = max(-_LARGEST_STEP, min(row.step, _LARGEST_STEP))
            restarted = 0 < place.begun < row.attempt
            place = place._replace(step=step, begun=row.attempt)
            if restarted:
                batch.add(row.time, step, session_log={"status": "START"})
                if row.attempt == self._info.attempt:
                    self._add_config(batch, row.time, step)
        if row.values:
            batch.add_values(row.time, place.step, row.values)
        return place

    def _add_config(self, batch: _Batch, moment: float, step: int) -> None:
        batch.add_text(moment, step, "config", _code(self._info.config_text))

    def _hyperparameters(self, now: float) -> Any:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        flat = dict(_flat("", json.loads(self._info.config_text)))
        return hparams_pb(flat, trial_id=self._info.session_id, start_time_secs=now)

    def _write(self, batch: _Batch, place: _Place) -> None:
        mark = _MARK + json.dumps(place)
        batch.add(time.time(), place.shown_step, session_log={"status": "CHECKPOINT", "msg": mark})
        self._file.append(batch.data())
        self._place = place


class _Place(NamedTuple):
    """Where the record of the run stands.

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


class _EventFile:
    """A file of events that grows by whole pieces.

    Attributes:
        size: how many of its bytes are whole.
    """

    def __init__(self, directory: files.OpenDirectory, name: str) -> None:
        self._path = os.path.join(directory.path, name)
        self._fd: int | None = directory.open(name, os.O_RDWR | os.O_CREAT)
        self.size = 0
        self._torn = True  # until it has been looked at

    def __enter__(self) -> _EventFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self._fd is None

    def close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def recover(self) -> _Place | None:
        """Find the last mark, and cut what stands behind it; ``None`` where there is no mark."""
        assert self._fd is not None
        found = None
        with open(self._fd, "rb", closefd=False) as file:
            for end, payload in _records(file, os.fstat(self._fd).st_size):
                if _MARK.encode() in payload and (place := _place_of(payload)) is not None:
                    self.size, found = end, place
        self._cut()
        return found

    def append(self, data: bytes) -> None:
        """Add a piece: all of it, or nothing that counts.

        Raises:
            OSError: it may be tried again.
            TrackerError: the file is closed.
        """
        if self._fd is None:
            raise TrackerError("the run has ended")
        try:
            if self._torn:
                self._cut()
            os.lseek(self._fd, self.size, os.SEEK_SET)
            self._torn = True
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as exc:
            exc.filename = self._path
            raise
        self._torn = False
        self.size += len(data)

    def _cut(self) -> None:
        assert self._fd is not None
        if os.fstat(self._fd).st_size > self.size:
            os.ftruncate(self._fd, self.size)
        self._torn = False


class _Batch:
    """Events for a file, in its format."""

    def __init__(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._make: Any = Event
        self._buffer = io.BytesIO()
        self._records: Any = RecordWriter(self._buffer)
        self._unbroken = 0

    def add(self, moment: float, step: int, **what: Any) -> None:
        """Add an event.

        Args:
            moment: its time, in seconds since the epoch.
            step: its step.
            what: its one other field.
        """
        self._put(self._make(wall_time=moment, step=step, **what))

    def add_values(self, moment: float, step: int, values: dict[str, Any]) -> None:
        """Add numbers by their names."""
        event = self._make(wall_time=moment, step=step)
        add = event.summary.value.add
        for key, value in values.items():
            add(tag=_tag(key), simple_value=_float(value))
        self._put(event)

    def add_text(self, moment: float, step: int, name: str, text: str) -> None:
        """Add a text, which may be Markdown."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        self.add(moment, step, summary=text_pb(_utf8(_OURS + name), _utf8(text)))

    def data(self) -> bytes:
        """Give it all."""
        return self._buffer.getvalue()

    def _put(self, event: Any) -> None:
        data = event.SerializeToString()
        self._records.write(data)
        self._unbroken += len(data)
        if self._unbroken > _LONGEST_UNBROKEN:
            self._unbroken = 0
            time.sleep(0)


def _add_event(batch: _Batch, place: _Place, event: Event) -> None:
    data = json.dumps(event.data, indent=1, ensure_ascii=False)
    name = clean(event.name)
    batch.add_text(event.time, place.shown_step, f"events/{name}", _code(clean(data)))


def _records(file: io.BufferedReader, size: int) -> Iterator[tuple[int, bytes]]:
    """Give where each record ends, and what it holds with its checksum behind, up to a torn one."""
    end = 0
    while end + 16 < size:
        (length,) = struct.unpack_from("<Q", file.read(12))
        if not 0 < length <= size - end - 16:
            return
        end += 16 + length
        yield end, file.read(length + 4)


def _place_of(payload: bytes) -> _Place | None:
    """Read a mark; ``None`` where it is none, or not as it was written."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    data, checksum = payload[:-4], payload[-4:]
    if struct.pack("<I", masked_crc32c(data)) != checksum:
        return None
    said = Event.FromString(data).session_log.msg
    return _Place(*json.loads(said.removeprefix(_MARK))) if said.startswith(_MARK) else None


@lru_cache(maxsize=4096)
def _tag(key: str) -> str:
    """Give a metric's name as TensorBoard can have it, apart from the names of texts."""
    tag = _utf8(key)
    return f"metric/{tag}" if not tag or tag.startswith(_OURS) else tag


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond 64 bits' range of floats
        return float("inf") if value > 0 else float("-inf")


def _code(text: str) -> str:
    return f"```json\n{text}\n```"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str | float | bool]]:
    """Give a config's values by their paths; lists as JSON, and no nulls."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{prefix}/{key}" if prefix else key, inner)
    elif isinstance(value, bool):
        yield _utf8(prefix), value
    elif isinstance(value, int | float):
        yield _utf8(prefix), _float(value)
    elif value is not None:
        yield _utf8(prefix), _utf8(value if isinstance(value, str) else json.dumps(value))
