"""Media in the journal: an event names a file of `media/`, once that is there."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator

from keisei.journal.records import Event, Media, Position
from keisei.journal.superseding import Cuts

__all__ = [
    "FOLDER",
    "KINDS",
    "MEDIA",
    "Media",
    "is_left_behind",
    "is_there",
    "media_in",
    "with_superseded",
]

MEDIA = "keisei/media"
FOLDER = "media"
KINDS = frozenset(["image", "figure", "video", "audio", "histogram", "table", "text", "file"])
FILE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}(?:\.[a-z0-9]{1,10})?")
_OWN = frozenset(["kind", "name", "step", "time", "at", "file", "size", "digest", "caption"])


def media_in(event: Event, directory: str) -> Media | None:
    """Return what an event names; ``None`` where it is no such event, or a forged one.

    Args:
        event: an event.
        directory: the run's directory.
    """
    said = event.data
    if event.name != MEDIA or not isinstance(said, dict):
        return None
    file, step, time = said.get("file"), said.get("step"), said.get("time")
    name, caption, after = said.get("name"), said.get("caption"), said.get("at")
    size, digest = said.get("size"), said.get("digest")
    sound = (
        said.get("kind") in KINDS
        and type(file) is str
        and FILE.fullmatch(file) is not None
        and type(name) is str
        and (step is None or type(step) is int)
        and type(time) in (int, float)
        and type(after) is int
        and type(size) is int
        and digest == file[3:67]
        and (caption is None or type(caption) is str)
    )
    if not sound:
        return None
    about = {key: value for key, value in said.items() if key not in _OWN}
    path = os.path.join(directory, FOLDER, *file.split("/"))  # type: ignore[union-attr]
    return Media(
        event.seq,
        time,  # type: ignore[arg-type]
        event.attempt,
        said["kind"],
        name,  # type: ignore[arg-type]
        step,
        path,
        size,  # type: ignore[arg-type]
        file[3:67],  # type: ignore[index]
        caption,
        about,
        after,  # type: ignore[arg-type]
    )


def is_there(media: Media) -> bool:
    """Return whether the file is there, and is no symlink or leads through one."""
    folder = os.path.dirname(media.path)
    try:
        return (
            stat.S_ISREG(os.lstat(media.path).st_mode)
            and stat.S_ISDIR(os.lstat(folder).st_mode)
            and stat.S_ISDIR(os.lstat(os.path.dirname(folder)).st_mode)
        )
    except OSError:
        return False


def with_superseded(found: Iterable[Media], cuts: Cuts) -> Iterator[Media]:
    """Yield media in their order, marked where a resume of the run has left them behind.

    What counts is where the call stood among the rows, for the event comes when the file is
    written. Where a later attempt has logged the same name at the same step again, that counts.

    Args:
        found: what the attempts have logged, in order.
        cuts: what the run's resumes have left behind.
    """
    everything = list(found)
    last: dict[tuple[str, int], int] = {}
    left = [is_left_behind(media, cuts) for media in everything]
    for media, behind in zip(everything, left, strict=True):
        if media.step is not None and not behind:
            last[media.name, media.step] = media.attempt
    for media, behind in zip(everything, left, strict=True):
        again = media.step is not None and last.get((media.name, media.step), 0) > media.attempt
        yield media._replace(superseded=behind or again)


def is_left_behind(media: Media, cuts: Cuts) -> bool:
    """Return whether a resume has gone back to before a thing was logged."""
    return Position(media.attempt, media.after) in cuts
