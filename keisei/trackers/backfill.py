"""Brings the trackers of a run that has ended up to date, from its journal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from keisei._io.files import OpenDirectory
from keisei.errors import ConfigError, TrackerError, quoted
from keisei.journal.follower import count_after
from keisei.redaction import HIDDEN, clean
from keisei.run.find import read_file
from keisei.run.layout import CONFIG_FILE, RECORD_FILE
from keisei.run.session_file import SessionRecord, TrackerRecord
from keisei.run.status import FINAL, FinalStatus, check_final
from keisei.trackers import cursor, trust
from keisei.trackers.base import RunInfo
from keisei.trackers.cursor import Cursor
from keisei.trackers.loading import make_tracker
from keisei.trackers.wandb import local_runs
from keisei.trackers.wandb.mode import NAME as WANDB
from keisei.trackers.worker import Worker


@dataclass(frozen=True)
class Behind:
    """A tracker that has not got all of a run, or was not told of its end.

    Attributes:
        run: the run's name.
        id: its id.
        directory: its directory.
        tracker: the tracker's name.
        attempt: the run's last attempt.
        status: how that ended; `failed` where it was killed.
        cursor: how far the tracker has got.
        rows: how many rows and events it has not got.
        signed: whether this user has named it, with its options, on this machine.
        beyond: what it would do beyond the run that only the run's directory asks for, in words;
            ``None`` where there is nothing of the kind.
        part: the part of the run whose rows these are; ``None`` for the owner's own.
    """

    run: str
    id: str
    directory: str
    tracker: str
    attempt: int
    status: FinalStatus
    cursor: Cursor
    rows: int
    signed: bool
    beyond: str | None
    part: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why it is not brought up to date unless it is trusted; ``None`` where it may be."""
        return None if self.beyond is None else trust.refusal(self.beyond)


def find_behind(directory: str) -> list[Behind]:
    """Find the trackers of a run that have not got all of it; nobody may be writing to it.

    Args:
        directory: the run's directory.

    Raises:
        OSError: it cannot be read.
    """
    found = []
    with OpenDirectory(directory) as opened:
        record = SessionRecord.parsed(read_file(opened, RECORD_FILE))
    if record is None:
        return []
    text = _config_text(directory)
    names = sorted({*cursor.names(directory), *record.trackers})
    # A part's rows come last: whoever brings them ends the run on W&B again.
    pairs: list[tuple[str, str | None]] = [(name, None) for name in names]
    pairs += [(WANDB, part) for part in cursor.parts(directory, WANDB)]
    for name, part in pairs:
        known = cursor.load(directory, name, part)
        if known == Cursor():  # its worker never came as far as storing one
            about = record.trackers.get(name, TrackerRecord())
            known = Cursor(options=_named_in(text, name), known=about)
        rows = count_after(directory, known.position, record.attempt, part)
        told = known.known.state == "finished" or known.seq < 0 or part is not None
        if rows or not (told or (name == WANDB and local_runs.to_upload(directory))):
            status = check_final(record.status) if record.status in FINAL else "failed"
            signed = _is_signed(record.session_id, name, known)
            obeyed = signed or known.options is None  # which nobody can make again
            found.append(
                Behind(
                    run=record.run_name,
                    id=record.session_id,
                    directory=directory,
                    tracker=name,
                    attempt=record.attempt,
                    status=status,
                    cursor=known,
                    rows=rows,
                    signed=signed,
                    beyond=None if obeyed else trust.reach(name, known.options or {}, directory),
                    part=part,
                )
            )
    return found


def catch_up(behind: Behind, timeout: float, *, trusted: bool = False) -> int:
    """Send a tracker what it has not got, and tell it how the run ended; blocks.

    Args:
        behind: the tracker.
        timeout: the longest that it may take, in seconds.
        trusted: whether the user trusts what the run's directory says of the tracker.

    Returns:
        How many rows and events it has got just now.

    Raises:
        TrackerError: it may not or cannot be made again, or has still not got all; what it has got
            it will not get again.
    """
    if behind.cursor.options is None:
        problem = "the program had made it itself, and only that can start it again"
        raise TrackerError(f"{behind.tracker}: {problem}")
    if behind.refusal is not None and not trusted:
        raise TrackerError(behind.refusal)
    text = _config_text(behind.directory)
    info = RunInfo(behind.id, behind.run, behind.attempt, behind.directory, text, part=behind.part)
    until = time.monotonic() + timeout
    worker = Worker(
        behind.tracker,
        info,
        partial(make_tracker, behind.tracker, _options(behind, text)),
        options=behind.cursor.options,
        named=behind.signed or trusted,
        retry=False,
    )
    worker.begin()
    worker.end(behind.status, timeout)
    worker.join(max(0.0, until - time.monotonic()))
    record = worker.state.record
    left = count_after(behind.directory, worker.state.position, behind.attempt, behind.part)
    if record.state != "finished" or left:
        reason = record.problem or f"it did not take all within {timeout:g} s"
        raise TrackerError(f"{behind.tracker}: {reason}")
    return worker.state.sent


def is_signed(directory: str, session_id: str, name: str) -> bool:
    """Return whether this user has named a tracker of a run, with its options, on this machine."""
    return _is_signed(session_id, name, cursor.load(directory, name))


def _is_signed(session_id: str, name: str, known: Cursor) -> bool:
    return trust.is_signed(known.signature, session_id, name, known.options)


def _named_in(config_text: str, name: str) -> dict[str, object] | None:
    """Return the options of a tracker that the config names; ``None`` for one that it does not."""
    if name == WANDB:
        return {}
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        options = json.loads(config_text)["tracking"]["trackers"].get(name)
        return None if options is None else dict(options)
    return None


def _options(behind: Behind, config_text: str) -> dict[str, object]:
    """Return what the tracker is made with; W&B's options are a section of the config."""
    options = dict(behind.cursor.options or {})
    for option, value in trust.places(behind.tracker, options).items():
        if HIDDEN in str(value):
            known = os.environ.get("MLFLOW_TRACKING_URI") if option == "tracking_uri" else None
            if known is None or clean(known) != value:
                way = (
                    ", or set MLFLOW_TRACKING_URI to the whole" if option == "tracking_uri" else ""
                )
                raise TrackerError(
                    f"{behind.tracker}: the secret in its option {quoted(option)} is not kept in "
                    f"the run's directory: start the run again, which resumes it{way}"
                )
            options[option] = known
    if behind.tracker == WANDB:
        section: Any = json.loads(config_text).get(WANDB)
        if isinstance(section, Mapping):
            options = {**section, **options}
        options |= {"mode": behind.cursor.known.mode, "offline_fallback": False}
    return options


def _config_text(directory: str) -> str:
    """Return the run's effective config as JSON text; an empty one where there is none."""
    try:
        with OpenDirectory(directory) as opened:
            text = read_file(opened, CONFIG_FILE)
        if isinstance(json.loads(text), dict):
            return text.decode()
        problem = "it is no mapping"
    except FileNotFoundError:
        return "{}"
    except ValueError as exc:
        problem = str(exc)
    raise ConfigError(f"the config of the run is no JSON object: {problem}")
