"""What of a run's media a tracker gets: those of the kinds that it says it shows."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from keisei.errors import TrackerError, quoted
from keisei.journal.media import FOLDER, KINDS, MEDIA, is_left_behind, is_there, media_in
from keisei.journal.records import Event, Row, is_system
from keisei.journal.superseding import Cuts
from keisei.run.session_file import TrackerRecord
from keisei.trackers.backlog import Backlog
from keisei.trackers.base import Media, Record, TrackerRun

LARGEST_JSON = 64 * 2**20  # bytes of a table or a histogram that is read


def kinds_of(run: TrackerRun) -> frozenset[str]:
    """Return the kinds of media that a run shows.

    Raises:
        TrackerError: what it says is no collection of kinds.
    """
    said: object = getattr(run, "media", ())
    if isinstance(said, Collection) and not isinstance(said, str) and KINDS.issuperset(said):
        return frozenset(said)
    raise TrackerError(f"its run's media is {quoted(said)}: kinds are {', '.join(sorted(KINDS))}")


def tracks_system(config_text: str) -> bool:
    """Return whether trackers get rows `system/...`, by `monitoring.track` of a run's config.

    Args:
        config_text: the effective config as JSON.
    """
    try:
        return json.loads(config_text)["monitoring"]["track"] is True
    except (KeyError, TypeError, ValueError):  # of an older run, or of none of keisei's
        return False


def hand_over(
    run: TrackerRun, records: Sequence[Record], known: TrackerRecord, backlog: Backlog
) -> TrackerRecord:
    """Send records to a run, and return what is known of it then; may block, and may raise.

    Args:
        run: the tracker's run.
        records: rows and events.
        known: what was known of the run before, with how many media it does not show.
        backlog: where the records are from.
    """
    where, cuts = backlog.directory, backlog.left_behind
    if not backlog.tracks_system:
        records = [one for one in records if not (isinstance(one, Row) and is_system(one.values))]
    found, left_out = with_media(records, kinds_of(run), where, cuts)
    before = getattr(run, "media_left_out", 0)
    if found:
        run.send(found)  # a list of its own: it is the tracker's to change
    missed = known.media_left_out + left_out + getattr(run, "media_left_out", 0) - before
    changes = {"state": "live", "problem": None, "media_left_out": missed}
    return known.model_copy(update=changes)


def with_media(
    records: Sequence[Record], kinds: frozenset[str], directory: str, cuts: Cuts
) -> tuple[list[Record], int]:
    """Return records with media in place of the events that name them.

    What the run has left behind is left out, and so is what is not there any more.

    Args:
        records: rows and events.
        kinds: the kinds that the tracker shows.
        directory: the run's directory.
        cuts: what the run's resumes have left behind.

    Returns:
        The records for the tracker, and how many media are not among them.
    """
    found: list[Record] = []
    left_out = 0
    for record in records:
        if not isinstance(record, Event) or record.name != MEDIA:
            found.append(record)
            continue
        media = media_in(record, directory)
        if media is None or is_left_behind(media, cuts):
            continue
        if media.kind in kinds and is_there(media):
            found.append(media)
        else:
            left_out += 1
    return found, left_out


def event_of(media: Media) -> Event:
    """Return media as a short event, for a tracker that can show no more of one."""
    said = {"kind": media.kind, "name": media.name, "step": media.step, "caption": media.caption}
    shown = {key: value for key, value in said.items() if value is not None}
    return Event(media.seq, media.time, media.attempt, "media", {**shown, "path": media.path})


def read_json(media: Media) -> dict[str, Any]:
    """Return what the file of a table or a histogram holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or too large.
    """
    if media.size > LARGEST_JSON:
        raise ValueError(f"{media.size:,} bytes are too many for a tracker")
    with open(media.path, "rb") as file:
        found = json.loads(file.read(LARGEST_JSON + 1))
    wanted = {"table": ("columns", "rows"), "histogram": ("counts", "edges")}.get(media.kind, ())
    if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in wanted):
        raise ValueError(f"no {media.kind}")
    return found


def image_in(cell: object, media: Media) -> str | None:
    """Return the file of an image in a table's cell; ``None`` where it is none that is kept."""
    if not isinstance(cell, dict) or not isinstance(cell.get("file"), str):
        return None
    file: str = cell["file"]
    said = {"kind": "image", "name": "cell", "step": None, "time": 0, "at": 0, "size": 0}
    home = media.path.rsplit(FOLDER, 1)[0]
    event = Event(0, 0.0, 1, MEDIA, {**said, "file": file, "digest": file[3:67]})
    found = media_in(event, home)
    return found.path if found is not None and is_there(found) else None


def plain_cell(cell: object) -> str | float | int | bool | None:
    """Return a table's cell as text or number."""
    if isinstance(cell, dict):
        return f"[image {cell.get('width', '?')} x {cell.get('height', '?')}]"
    return cell if isinstance(cell, (str, float, int, bool)) else None
