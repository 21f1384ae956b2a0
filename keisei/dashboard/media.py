"""The media of a run, as the page gets them: named by their content, and never run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from keisei._io.files import OpenDirectory
from keisei.dashboard.details import plain
from keisei.journal.records import Event, Position
from keisei.journal.superseding import Cuts

MOST = 2_000  # things of a run that are listed, the last ones
LARGEST = 64 << 20  # bytes of a file that is sent
_FILE = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62}\.[A-Za-z0-9]{1,8})")
_TYPES = {
    "gif": "image/gif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "png": "image/png",
    "svg": "image/svg+xml",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
}


def media_data(events: Iterable[Event], cuts: Cuts) -> list[dict[str, Any]]:
    """Return what is said of each thing that was logged, in order, without what was superseded.

    Args:
        events: the events that name them.
        cuts: what the run's resumes have left behind.
    """
    found = []
    for event in events:
        if isinstance(event.data, Mapping):
            at = event.data.get("at")
            logged = Position(event.attempt, at if isinstance(at, int) else event.seq)
            if logged not in cuts:
                found.append(event)
    return [{"attempt": event.attempt, **plain(event.data)} for event in found[-MOST:]]


def kind_of(name: str) -> str:
    """Return the media type of a file by its name; text for what is none that a page shows."""
    return _TYPES.get(name.rpartition(".")[2].lower(), "text/plain; charset=utf-8")


def read_media(directory: str, name: str) -> bytes:
    """Return the content of a file in a run's `media/`.

    Args:
        directory: the run's directory.
        name: its name there, made of its content's digest.

    Raises:
        FileNotFoundError: there is none, or it is larger than a page should get.
        OSError: it cannot be read.
    """
    found = _FILE.fullmatch(name)
    if found is None:
        raise FileNotFoundError("the run has no such file")
    with (
        OpenDirectory(os.path.join(directory, "media", found[1])) as opened,
        open(opened.open(found[2], os.O_RDONLY), "rb") as file,
    ):
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        most = f"{LARGEST >> 20} MiB"
        raise FileNotFoundError(f"the file is larger than {most}: look into the run's directory")
    return content
