"""Checks what a tracker answers, where it is taken: what is no answer is that tracker's failure."""

from __future__ import annotations

import json
import math
import os
from typing import cast

from keisei.errors import TrackerError, describe, quoted
from keisei.journal.records import Position
from keisei.redaction import clean
from keisei.run.session_file import TrackerRecord
from keisei.trackers.base import Tracker, TrackerRun

_MODES = ("online", "offline")
_LONGEST_NAME = 64
_LONGEST = 8192  # characters of a text


def record_of(run: object) -> TrackerRecord:
    """Return what a started run says of itself, as plain text.

    Args:
        run: what `Tracker.start` has returned.

    Raises:
        TrackerError: it is no run, or an attribute is of the wrong kind; the message names it.
    """
    if run is None:
        raise TrackerError("its start() returned None, and not the run that it has started")
    mode = _text(run, "mode")
    if mode not in _MODES:
        raise TrackerError(f"its run's mode is {quoted(mode)}, which is none of {_MODES}")
    run_id = _text(run, "run_id")
    if run_id is None:
        raise TrackerError("its run has no run_id")
    return TrackerRecord(
        run_id=run_id,
        upload_as=_text(run, "upload_as"),
        url=clean(_text(run, "url")),
        mode=mode,
        directory=_text(run, "directory"),
        state="live",
    )


def name_of(tracker: Tracker) -> str:
    """Return a tracker's name, as plain text.

    Raises:
        TrackerError: it has none.
    """
    try:
        name: object = tracker.name
    except Exception as exc:
        raise TrackerError(f"a tracker's name cannot be read ({describe(exc)})") from exc
    if not isinstance(name, str) or not name:
        raise TrackerError(f"a tracker's name is {quoted(name)}, and not a text")
    if len(name) > _LONGEST_NAME or not name.isprintable():
        problem = f"of at most {_LONGEST_NAME} printable characters"
        raise TrackerError(f"a tracker's name is {quoted(name)}, and not a text {problem}")
    return str.__str__(name)


def start_timeout_of(tracker: Tracker) -> float:
    """Return how long a tracker's start may take, in seconds; by default as the protocol says.

    Raises:
        TrackerError: it is no positive number.
    """
    timeout: object = getattr(tracker, "start_timeout", Tracker.start_timeout)
    if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise TrackerError(f"its start_timeout is {quoted(timeout)}, and not a number of seconds")
    return float(timeout)


def options_of(run: object) -> dict[str, object]:
    """Return what the tracker has to be made with to find a run again.

    Args:
        run: what `Tracker.start` has returned.

    Raises:
        TrackerError: it is no mapping of what JSON can hold.
    """
    try:
        options = dict(getattr(run, "options", {}))
        json.dumps(options, ensure_ascii=False, allow_nan=False).encode()
    except Exception as exc:
        raise TrackerError(f"its run's options are no JSON object ({type(exc).__name__})") from exc
    return options


def kept_of(run: object, position: Position) -> Position:
    """Return how much of what a run has taken outlives this process: all of it, or what it says.

    Args:
        run: what `Tracker.start` has returned; ``None`` before that.
        position: the last record that it has taken.
    """
    ask = getattr(run, "kept", None)
    try:
        answer = None if ask is None else ask()
        return position if answer is None else min(position, Position(*answer))
    except Exception:  # noqa: BLE001 - foreign code
        return Position(0, -1)


def _text(run: object, name: str) -> str | None:
    default = "online" if name == "mode" else None
    try:
        value = getattr(run, name, default)
    except Exception as exc:
        raise TrackerError(f"its run's {name} cannot be read ({type(exc).__name__})") from exc
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if type(value) is int:
        value = str(value)
    if value is None:
        return None
    if not isinstance(value, str):
        kind = type(value).__name__
        raise TrackerError(f"its run's {name} is of the kind {kind}, and not text")
    if len(value) > _LONGEST:
        raise TrackerError(f"its run's {name} has more than {_LONGEST:,} characters")
    # What is not UTF-8, as a path may be, is escaped: it is written into files.
    return str.__str__(value).encode(errors="backslashreplace").decode()


def rewound(run: TrackerRun, after: Position) -> bool:
    """Ask a run to drop the rows behind a position, and return whether it has.

    It may block, and raises what the run raises.
    """
    ask = getattr(run, "rewind", None)
    return ask is not None and bool(ask(after))


def position_of(run: TrackerRun) -> Position | None:
    """Ask a run for its position; may block, and raises what the run raises.

    Raises:
        TrackerError: it answers with something that is no position.
    """
    ask = getattr(run, "position", None)
    answer: object = None if ask is None else ask()
    if answer is None:
        return None
    try:
        attempt, seq = cast("tuple[object, object]", answer)
    except (TypeError, ValueError):
        attempt = seq = None
    if type(attempt) is not int or type(seq) is not int or attempt < 0 or seq < -1:
        raise TrackerError(f"its position() returned {quoted(answer)}, which is no position")
    return Position(attempt, seq)
