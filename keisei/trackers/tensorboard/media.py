"""Media as TensorBoard's events: its own images, audio, histograms, and texts for the rest."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

from keisei.journal.media import Media
from keisei.trackers.media import plain_cell, read_json
from keisei.trackers.tensorboard.events import Batch

KINDS = ("image", "figure", "video", "audio", "histogram", "table", "text")
LARGEST = 16 * 2**20  # bytes, each of which is read with the file that the events are in
_LONGEST_TEXT = 1 << 17
_MOST_ROWS = 200
_IMAGES = (".png", ".jpg", ".gif")


def add_media(batch: Batch, step: int, media: Media) -> bool:
    """Add one to events to be written; return whether TensorBoard can show it.

    Args:
        batch: the events.
        step: where it stands.
        media: what to show; its file is read.
    """
    tag = f"{media.kind}/{media.name}"
    try:
        if media.kind in ("text", "table"):
            text = _text(media) if media.kind == "text" else _markdown(media)
            batch.add_text(media.time, step, tag, text)
            return True
        value = _value(media)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return False
    if value is None:
        return False
    batch.add(media.time, step, summary={"value": [{"tag": tag, **value}]})
    return True


def _value(media: Media) -> dict[str, Any] | None:
    suffix = media.path[-4:]
    if media.kind == "histogram":
        return {"histo": _histogram(read_json(media))}
    if media.size > LARGEST:
        return None
    with open(media.path, "rb") as file:
        data = file.read(LARGEST)
    if media.kind == "audio" and suffix == ".wav" and data[12:16] == b"fmt ":
        channels, rate, _, frame = struct.unpack_from("<HIIH", data, 22)
        audio = {"sample_rate": rate, "num_channels": channels, "encoded_audio_string": data}
        audio |= {"length_frames": (len(data) - 44) // max(1, frame), "content_type": "audio/wav"}
        return {"audio": audio}
    if suffix in _IMAGES:
        size = {key: int(media.about.get(key, 0)) for key in ("width", "height")}
        return {"image": {**size, "colorspace": 3, "encoded_image_string": data}}
    return None


def _histogram(found: dict[str, Any]) -> dict[str, Any]:
    counts, edges = [float(n) for n in found["counts"]], [float(n) for n in found["edges"]]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    both = list(zip(counts, middles, strict=True))
    return {
        "min": edges[0],
        "max": edges[-1],
        "num": sum(counts),
        "sum": sum(count * middle for count, middle in both),
        "sum_squares": sum(count * middle * middle for count, middle in both),
        "bucket_limit": edges[1:],
        "bucket": counts,
    }


def _text(media: Media) -> str:
    with open(media.path, encoding="utf-8", errors="replace") as file:
        lines = file.read(_LONGEST_TEXT).splitlines()
    return "\n".join(f"    {line}" for line in lines)  # as it stands, and no Markdown


def _markdown(media: Media) -> str:
    found = read_json(media)
    rows = [found["columns"], ["---"] * len(found["columns"])]
    rows += [[plain_cell(cell) for cell in row] for row in found["rows"][:_MOST_ROWS]]
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    if (more := len(found["rows"]) - _MOST_ROWS) > 0:
        lines += ["", f"{more:,} more rows"]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
