"""Media as trackio keeps them: a copy in its own folder, and a value that names it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

from keisei.journal.media import Media
from keisei.redaction import clean
from keisei.trackers.media import image_in, plain_cell, read_json

KINDS = ("image", "figure", "video", "audio", "histogram", "table", "text")
FolderOf = Callable[[int], tuple[str, str]]  # of a step: its path, and as trackio writes it
_LONGEST_TEXT = 1 << 17
_MOST_ROWS = 1000


def value_of(media: Media, step: int, folder_of: FolderOf) -> dict[str, Any] | None:
    """Return the value of one in a row; ``None`` where trackio shows nothing of the kind.

    Args:
        media: what to show; its file is read.
        step: where it stands.
        folder_of: makes the folder of a step, and returns it.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: it is no such file.
    """
    suffix = os.path.splitext(media.path)[1]
    if media.kind == "histogram":
        found = read_json(media)
        return {"_type": "trackio.histogram", "bins": found["edges"], "values": found["counts"]}
    if media.kind == "text":
        with open(media.path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_LONGEST_TEXT).splitlines()
        text = "\n".join(f"    {line}" for line in lines)  # as it stands, and no Markdown
        return {"_type": "trackio.markdown", "_value": text}
    if media.kind == "table":
        return {"_type": "trackio.table", "_value": _rows(media, step, folder_of)}
    kind = {"figure": "image"}.get(media.kind, media.kind)
    if suffix == ".json" or media.kind not in KINDS:
        return None
    return _copied(media, media.path, f"trackio.{kind}", step, folder_of)


def _rows(media: Media, step: int, folder_of: FolderOf) -> list[dict[str, Any]]:
    found = read_json(media)
    rows = []
    for row in found["rows"][:_MOST_ROWS]:
        cells: list[Any] = []
        for cell in row:
            path = image_in(cell, media)
            image = path and _copied(media, path, "trackio.image", step, folder_of)
            cells.append(image or plain_cell(cell))
        rows.append(dict(zip(found["columns"], cells, strict=False)))
    return rows


def _copied(media: Media, path: str, kind: str, step: int, folder_of: FolderOf) -> dict[str, Any]:
    """Copy a file to trackio's folder, under a name that is the same each time."""
    folder, shown = folder_of(step)
    name = f"{media.attempt}-{media.seq}-{os.path.basename(path)}"
    target = os.path.join(folder, name)
    if not os.path.exists(target):
        shutil.copyfile(path, f"{target}.tmp")
        os.replace(f"{target}.tmp", target)
    return {"_type": kind, "file_path": f"{shown}/{name}", "caption": clean(media.caption)}
