"""Trackio, Hugging Face's local-first tracker. Its only home; measured with trackio 0.43."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from keisei._io.switching import quiet_imports
from keisei._log import logger
from keisei.errors import MissingExtraError, TrackerError, quoted
from keisei.journal.reader import Event, Row
from keisei.redaction import clean
from keisei.run.status import FinalStatus
from keisei.trackers.base import Record, RunInfo, Tracker, TrackerRun

DEFAULT_PROJECT = "keisei"

# What trackio has of its own in each row; it gives a metric of such a name two underlines.
_RESERVED = frozenset(["project", "run", "timestamp", "step", "time", "metrics"])
_LEVELS: dict[FinalStatus, Literal["info", "warn", "error"]] = {
    "completed": "info",
    "failed": "error",
    "cancelled": "warn",
    "preempted": "warn",
}
_LARGEST_STEP = 2**63 - 1  # of SQLite
_LONGEST_DATA = 4000  # the dashboard gets all alerts again with each look

Entry = dict[str, Any]


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
    next_step: int
    fragments: Any
    write: Callable[[list[Entry]], object]
    directory: str | None = None
    has_sent: bool = False

    def __post_init__(self) -> None:
        self.run_id = self.info.session_id

    def send(self, records: Sequence[Record]) -> None:
        """Write rows and events to the store; may block for 30 s where a program has locked it.

        Raises:
            OSError: the store cannot be written. What SQLite raises is raised as it is.
        """
        config, next_step = self.config, self.next_step
        entries = []
        for record in records:
            if isinstance(record, Row):
                step = next_step if record.step is None else record.step
                step = max(-_LARGEST_STEP, min(step, _LARGEST_STEP))
                next_step = max(next_step, step + 1)
                entries.append(self._row(record, step, config))
                config = None  # with the first row: the store has no config of a run without one
            else:
                entries.append(self._event(record, next_step))
        self.write(entries)
        self.config, self.next_step = config, next_step
        self.has_sent = self.has_sent or bool(entries)

    def finish(self, status: FinalStatus) -> None:
        """Note the status as an alert, since trackio has none of its own.

        A run that has sent nothing is unknown to trackio, or was started too late to be of use.
        """
        if not self.has_sent:
            return
        text, level = f"attempt {self.info.attempt}", _LEVELS[status]
        number = f"{self.info.attempt}-end"
        self.write([self._alert(number, time.time(), self.next_step, f"run {status}", text, level)])

    def _row(self, row: Row, step: int, config: Entry | None) -> Entry:
        values = _bearable({_metric(name): value for name, value in row.values.items()})
        entry = self._entry("log_id", f"{row.attempt}-{row.seq}", row.time)
        entry |= {"metrics": values, "step": step, "config": config}
        record: Entry = self.fragments.metric_record(entry)
        return record

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
        entry |= _bearable({"title": title, "text": text, "level": level})
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
        other: there are no other options.

    Raises:
        TrackerError: there is no such option.
    """

    name = "trackio"
    apart = True

    def __init__(
        self, project: str = DEFAULT_PROJECT, group: str | None = None, **other: object
    ) -> None:
        if other:
            raise TrackerError(
                f"trackio's options are project and group, not {quoted(', '.join(sorted(other)))}: "
                "runs are written to its local store, and `trackio sync` takes them to a Space"
            )
        self.project = _text(clean(project)) or DEFAULT_PROJECT
        self.group = _text(clean(group)) if group is not None else None

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
        fragments, storage, utils = _sdk()
        storage.validate_project_name(self.project)
        if _writes_to_inbox(utils):
            write, largest_step = fragments.FragmentWriter().write_local, None
        else:
            storage.init_db(self.project)
            write = fragments.import_records
            largest_step = storage.get_max_step_for_run(self.project, run_id=run.session_id)
        return TrackioRun(
            info=run,
            project=self.project,
            config=_config(run.config_text, self.group),
            next_step=0 if largest_step is None else largest_step + 1,
            fragments=fragments,
            write=write,
            directory=os.path.abspath(utils.TRACKIO_DIR),
        )


def _sdk() -> tuple[Any, Any, Any]:
    """Import trackio, and leave the level of httpx's logger, which it sets, as it was."""
    httpx_logger = logging.getLogger("httpx")
    level = httpx_logger.level
    try:
        with quiet_imports("trackio"):
            from trackio import fragments, utils
            from trackio.sqlite_storage import SQLiteStorage
    except ImportError as exc:
        raise MissingExtraError(
            "the tracker trackio needs trackio: install it with `pip install 'keisei[trackio]'`"
        ) from exc
    finally:
        httpx_logger.setLevel(level)
    return fragments, SQLiteStorage, utils


def _writes_to_inbox(utils: Any) -> bool:
    """Tell what `trackio.utils.get_storage_mode` does, which prints."""
    asked = os.environ.get("TRACKIO_STORAGE_MODE", "").strip().lower()
    if asked in ("sqlite", "jsonl"):
        return asked == "jsonl"
    return bool(utils.is_network_filesystem(utils.TRACKIO_DIR))


def _config(text: str, group: str | None) -> Entry:
    """Give the run's config; keys that begin with an underline are trackio's own."""
    items = json.loads(text).items()
    config = {f"config{key}" if key.startswith("_") else key: value for key, value in items}
    plain: Entry = _bearable({**config, "_Group": group})
    return plain


def _metric(name: str) -> str:
    """Give a metric's name as trackio itself writes it."""
    return f"__{name}" if name in _RESERVED or name.startswith("__") else name


def _text(text: str) -> str:
    """Give a text that UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _bearable(value: Any) -> Any:
    """Give JSON's kind of data as trackio can write it: text as UTF-8, and integers in 64 bits."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(key): _bearable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_bearable(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    return value
