"""Trackio, Hugging Face's local-first tracker. Its only home; measured with trackio 0.43."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from keisei._log import logger
from keisei.errors import TrackerError, quoted
from keisei.journal.records import Event, Row, as_float
from keisei.redaction import clean
from keisei.run.status import FinalStatus
from keisei.trackers.base import Media, Position, Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.loading import need_package, need_temporary_directory
from keisei.trackers.trackio_media import KINDS, value_of

DEFAULT_PROJECT = "keisei"

# What trackio has of its own in each row; it gives a metric of such a name two underscores.
_RESERVED = frozenset(["project", "run", "timestamp", "step", "time", "metrics"])
_LEVELS: dict[FinalStatus, Literal["info", "warn", "error"]] = {
    "completed": "info",
    "failed": "error",
    "cancelled": "warn",
    "preempted": "warn",
}
_LARGEST_STEP = 2**63 - 1  # of SQLite
_LONGEST_DATA = 4000  # the dashboard gets all alerts again with each look

# Trackio's lock is a file's, asked for every 0.1 s, and given up after 10: the runs of one process
# take turns, and so one thread at a time imports trackio, too.
_turn = threading.Lock()

Entry = dict[str, Any]
StoredSteps = Callable[[], Iterable[tuple[str | None, int]]]  # ids and steps of a run's rows
Remove = Callable[[list[str]], None]  # rows, by their ids


@dataclass
class TrackioRun(TrackerRun):
    """A run in trackio's store.

    Its rows have ids made of session, attempt and number, and the store takes an id once: records
    that come again change nothing. A row without a step gets the one after the run's largest, as
    trackio itself does it. An event is an alert, which the dashboard shows.
    """

    info: RunInfo
    project: str
    config: Entry | None
    fragments: Any
    write: Callable[[list[Entry]], object]
    stored: StoredSteps
    remove: Remove | None = None
    directory: str | None = None
    options: dict[str, object] = field(default_factory=dict)
    next_step: int | None = None
    media = KINDS

    def __post_init__(self) -> None:
        self.run_id = self.info.session_id

    def send(self, records: Sequence[Record]) -> None:
        """Write rows and events to the store; may block for 30 s where a program has locked it.

        Raises:
            OSError: the store cannot be written. What SQLite raises is raised as it is.
        """
        if not records:
            return
        config = self.config
        entries = []
        with _turn:
            next_step = self._find_next_step((records[0].attempt, records[0].seq))
            for record in records:
                if isinstance(record, Row):
                    step = next_step if record.step is None else record.step
                    step = max(-_LARGEST_STEP, min(step, _LARGEST_STEP))
                    next_step = max(next_step, step + 1)
                    entries.append(self._row(record, step, config))
                    config = None  # with the first row: no run without one has a config there
                elif isinstance(record, Media):
                    step = next_step if record.step is None else record.step
                    step = max(-_LARGEST_STEP, min(step, _LARGEST_STEP))
                    if entry := self._media(record, step):
                        next_step = max(next_step, step + 1)
                        entries.append(entry)
                else:
                    entries.append(self._event(record, next_step))
            self.write(entries)
        self.config, self.next_step = config, next_step

    def rewind(self, after: Position) -> bool:
        """Remove the rows behind a position; those in trackio's inbox cannot be removed.

        Raises:
            OSError: the store cannot be written. What SQLite raises is raised as it is.
        """
        if self.remove is None:
            return False
        with _turn:
            rows = [log_id for log_id, _ in self.stored() if log_id is not None]
            self.remove([log_id for log_id in rows if self._position(log_id) > after])
        self.next_step = None
        return True

    def finish(self, status: FinalStatus) -> None:
        """Write the status as an alert, since trackio has none of its own."""
        text, level = f"attempt {self.info.attempt}", _LEVELS[status]
        number = f"{self.info.attempt}-end"
        with _turn:
            step = self._find_next_step((self.info.attempt + 1, 0))
            self.write([self._alert(number, time.time(), step, f"run {status}", text, level)])

    def _find_next_step(self, first: tuple[int, int]) -> int:
        """Return the step after the largest that the store has of records before the first."""
        if self.next_step is not None:
            return self.next_step
        return 1 + max(
            (
                step
                for log_id, step in self.stored()
                if log_id is None or self._position(log_id) < first
            ),
            default=-1,
        )

    def _position(self, log_id: str) -> tuple[int, ...]:
        return tuple(map(int, log_id[len(self.run_id) + 1 :].split("-")))

    def _row(self, row: Row, step: int, config: Entry | None) -> Entry:
        values = _storable({_metric(name): value for name, value in row.values.items()})
        entry = self._entry("log_id", f"{row.attempt}-{row.seq}", row.time)
        entry |= {"metrics": values, "step": step, "config": config}
        record: Entry = self.fragments.metric_record(entry)
        return record

    def _media(self, media: Media, step: int) -> Entry | None:
        shown = None
        with suppress(OSError, ValueError):
            shown = value_of(media, step, self._folder_of)
        if shown is None:
            self.media_left_out += 1
            return None
        entry = self._entry("log_id", f"{media.attempt}-{media.seq}", media.time)
        values = _storable({f"{media.kind}/{media.name}": shown})
        record: Entry = self.fragments.metric_record(
            {**entry, "metrics": values, "step": step, "config": None}
        )
        return record

    def _folder_of(self, step: int) -> tuple[str, str]:
        """Return where trackio keeps the media of a step of this run, and how it writes that."""
        from trackio.media.utils import get_project_media_path
        from trackio.utils import MEDIA_DIR

        folder = get_project_media_path(self.project, self.run_id, step)
        return str(folder), folder.relative_to(MEDIA_DIR).as_posix()

    def _event(self, event: Event, next_step: int) -> Entry:
        name, data = clean(event.name), clean(event.data)
        text = json.dumps(data, ensure_ascii=False) if data is not None else None
        if text and len(text) > _LONGEST_DATA:
            text = text[:_LONGEST_DATA] + "..."
        number = f"{event.attempt}-{event.seq}"
        return self._alert(number, event.time, next_step, name, text, "info")

    def _alert(
        self, number: str, moment: float, next_step: int, title: str, text: str | None, level: str
    ) -> Entry:
        entry = self._entry("alert_id", number, moment)
        entry |= _storable({"title": title, "text": text, "level": level})
        entry["step"] = max(next_step - 1, 0)
        record: Entry = self.fragments.alert_record(entry)
        return record

    def _entry(self, id_key: str, number: str, moment: float) -> Entry:
        return {
            "project": self.project,
            "run": _text(self.info.run_name),
            "run_id": self.run_id,
            "timestamp": datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds"),
            id_key: f"{self.run_id}-{number}",
        }


class TrackioTracker(Tracker):
    """Writes runs to trackio's local store, where its dashboard (`trackio show`) reads them.

    The store is where trackio has it: in ``TRACKIO_DIR``. On a network file system, where writers
    at the same time would harm it, rows go to trackio's inbox, and its dashboard imports them.
    Nothing of trackio's own is started: no thread, no dashboard, no login.

    Args:
        project: the project that the run is in.
        group: the group that the run is in, by which the dashboard can group runs.
        directory: the store that the run is in; the process has to have no other one.
        other: there are no other options.

    Raises:
        TrackerError: there is no such option.
    """

    name = "trackio"

    def __init__(
        self,
        project: str = DEFAULT_PROJECT,
        group: str | None = None,
        directory: str | None = None,
        **other: object,
    ) -> None:
        if other:
            raise TrackerError(
                f"trackio's options are project and group, not {quoted(', '.join(sorted(other)))}: "
                "runs are written to its local store, and `trackio sync` takes them to a Space"
            )
        self.project = _text(clean(project)) or DEFAULT_PROJECT
        self.group = _text(clean(group)) if group is not None else None
        self._directory = directory

    def start(self, run: RunInfo) -> TrackioRun:
        """Open the store, and make it where there is none; may block.

        Raises:
            MissingExtraError: trackio is not installed.
            ValueError: trackio does not allow the project's name.
            OSError: the store cannot be written. What SQLite raises is raised as it is.
        """
        for variable in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            if os.environ.get(variable):
                logger.warning(
                    "%s is set, but trackio tracks run %s in its local store: `trackio sync` "
                    "takes it to a Space.",
                    variable,
                    run.run_name,
                )
        with _turn:
            fragments, storage, utils = _import_sdk(self._directory)
            directory = os.path.abspath(utils.TRACKIO_DIR)
            if self._directory not in (None, directory):
                raise TrackerError(
                    f"trackio's store is {quoted(directory, 300)} in this process: set TRACKIO_DIR "
                    f"to {quoted(self._directory, 300)}, where the run is"
                )
            storage.validate_project_name(self.project)
            if _writes_to_inbox(utils):
                write = fragments.FragmentWriter().write_local
                stored: StoredSteps = _none_stored
                remove: Remove | None = None
            else:
                path = storage.init_db(self.project)
                write = fragments.import_records
                stored = partial(_stored_steps, storage, path, run.session_id)
                remove = partial(_remove_rows, storage, self.project, path)
        return TrackioRun(
            info=run,
            project=self.project,
            config=_config(run.config_text, self.group),
            fragments=fragments,
            write=write,
            stored=stored,
            remove=remove,
            directory=directory,
            options={"directory": directory},
        )


def _import_sdk(directory: str | None) -> tuple[Any, Any, Any]:
    """Import trackio, and leave the level of httpx's logger, which it sets, as it was.

    Args:
        directory: where its store has to be; it asks the environment, once.
    """
    if "trackio" not in sys.modules and (chosen := directory or os.environ.get("TRACKIO_DIR")):
        os.environ["TRACKIO_DIR"] = os.path.abspath(chosen)
    need_temporary_directory("the import of trackio")
    httpx_logger = logging.getLogger("httpx")
    level = httpx_logger.level
    try:
        need_package("trackio", "trackio")
        from trackio import fragments, utils
        from trackio.sqlite_storage import SQLiteStorage
    finally:
        httpx_logger.setLevel(level)
    return fragments, SQLiteStorage, utils


def _stored_steps(storage: Any, path: Any, run_id: str) -> list[tuple[str | None, int]]:
    """Return the id and the step of each row of a run."""
    with storage._get_connection(path, row_factory=None) as database:
        found = database.execute("SELECT log_id, step FROM metrics WHERE run_id = ?", (run_id,))
        return list(found)


def _remove_rows(storage: Any, project: str, path: Any, log_ids: list[str]) -> None:
    """Remove rows, all of them or none."""
    with storage._get_process_lock(project), storage._get_connection(path) as database:
        wanted = [(log_id,) for log_id in log_ids]
        database.executemany("DELETE FROM metrics WHERE log_id = ?", wanted)


def _none_stored() -> tuple[()]:
    """Return no rows: what is in trackio's inbox is not looked at."""
    return ()


def _writes_to_inbox(utils: Any) -> bool:
    """Return what `trackio.utils.get_storage_mode` does, which prints."""
    asked = os.environ.get("TRACKIO_STORAGE_MODE", "").strip().lower()
    if asked in ("sqlite", "jsonl"):
        return asked == "jsonl"
    return bool(utils.is_network_filesystem(utils.TRACKIO_DIR))


def _config(text: str, group: str | None) -> Entry:
    """Return the run's config; keys that begin with an underscore are trackio's own."""
    items = json.loads(text).items()
    config = {f"config{key}" if key.startswith("_") else key: value for key, value in items}
    plain: Entry = _storable({**config, "_Group": group})
    return plain


def _metric(name: str) -> str:
    """Return a metric's name as trackio itself writes it."""
    return f"__{name}" if name in _RESERVED or name.startswith("__") else name


def _text(text: str) -> str:
    """Return a text that UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _storable(value: Any) -> Any:
    """Return JSON's kind of data as trackio can write it: UTF-8, and integers of 64 bits."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return as_float(value)
    return value
