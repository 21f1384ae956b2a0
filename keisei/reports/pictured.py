"""The media of a run in its report: inlined up to a limit, and never as markup of their own."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from keisei.dashboard.media import read_media
from keisei.journal.media import Media
from keisei.media.formats import image_header
from keisei.redaction import clean
from keisei.reports.markup import Child, Markup, el, table
from keisei.reports.sections import lines, section, size

MOST_BYTES = 1 << 20  # of all media of a report
_MOST_NAMES, _MOST_OF_NAME = 200, 4  # the last ones
_MOST_TEXT, _MOST_TABLE = 20_000, 100  # characters; rows
_LARGEST_JSON = 8 << 20  # bytes of a table or a histogram that is read
_IMAGES = {".png": "png", ".gif": "gif", ".jpg": "jpeg", ".webp": "webp", ".bmp": "bmp"}
_SOUND = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".m4a": "audio/mp4",
    ".flac": "audio/flac",
}


def media(found: Sequence[Media], most: int = MOST_BYTES) -> Markup | None:
    """Return what a run keeps besides numbers, the last ones of each name first.

    Args:
        found: the things, in the order in which they were logged.
        most: how many bytes are inlined at most.
    """
    names: dict[str, list[Media]] = {}
    for one in found:
        names.setdefault(one.name, []).append(one)
    if not names:
        return None
    left = _Left(most)
    groups: list[Child] = []
    for name, things in [*names.items()][:_MOST_NAMES]:
        shown = [_figure(one, left) for one in reversed(things[-_MOST_OF_NAME:])]
        more = len(things) - len(shown)
        said = f"{more:,} earlier ones are in the run's directory" if more > 0 else None
        note = el("p", said, class_="dim") if said else None
        groups.append(el("div", el("h3", name), el("div", shown, class_="media"), note))
    more = len(names) - _MOST_NAMES
    note = el("p", f"{more:,} more names are left out", class_="summary") if more > 0 else None
    return section("media", "Media", groups, note)


class _Left:
    """How many bytes may still be inlined."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, count: int) -> bool:
        if count > self._left:
            return False
        self._left -= count
        return True


def _figure(one: Media, left: _Left) -> Markup:
    step = f"step {one.step:,}" if one.step is not None else None
    words = ", ".join(filter(None, [step, clean(one.caption) if one.caption else None]))
    return el("figure", _body(one, left), el("figcaption", words), class_=f"thing thing-{one.kind}")


def _body(one: Media, left: _Left) -> Child:
    suffix = os.path.splitext(one.path)[1].lower()
    try:
        if one.kind == "text":
            return lines(_text(one), "text")
        if one.kind == "table" and one.size <= _LARGEST_JSON:
            return _table(json.loads(_content(one)))
        if one.kind == "histogram" and one.size <= _LARGEST_JSON:
            return _histogram(json.loads(_content(one)))
        sound = _SOUND.get(suffix)
        if (suffix in _IMAGES or sound) and one.kind != "file" and left.take(one.size * 4 // 3):
            content = _content(one)
            header = image_header(content[: 1 << 18])
            if header is not None and header.suffix in _IMAGES:
                words = f"{one.name}, {one.kind}"
                source = _data(f"image/{_IMAGES[header.suffix]}", content)
                about = {"width": header.width, "height": header.height}
                return el("img", src=source, alt=words, loading="lazy", **about)
            if sound and header is None:
                tag = "video" if sound.startswith("video") else "audio"
                return el(tag, src=_data(sound, content), controls=True, preload="metadata")
    except (OSError, ValueError, TypeError, RecursionError, AttributeError, LookupError):
        return el("p", "It cannot be read.", class_="problem")
    where = "/".join(one.path.split(os.sep)[-3:])
    return el("p", f"{one.kind}, {size(one.size)}: ", el("code", where), class_="dim")


def _content(one: Media) -> bytes:
    folder, name = os.path.split(one.path)
    above, digits = os.path.split(folder)
    return read_media(os.path.dirname(above), f"{digits}/{name}")


def _data(kind: str, content: bytes) -> Markup:
    return Markup(f"data:{kind};base64,{b64encode(content).decode()}")


def _text(one: Media) -> str:
    found = clean(_content(one).decode(errors="replace"))
    left = len(found) - _MOST_TEXT
    return found if left <= 0 else f"{found[:_MOST_TEXT]}\n… {left:,} characters more"


def _table(data: Mapping[str, Any]) -> Child:
    columns, rows = data["columns"], data["rows"]
    heads = [column.get("name") if isinstance(column, Mapping) else column for column in columns]
    shown = table(heads, (map(_cell, row) for row in rows[:_MOST_TABLE]), caption="A table")
    more = len(rows) - _MOST_TABLE
    return [shown, el("p", f"{more:,} more rows", class_="dim") if more > 0 else None]


def _cell(value: object) -> Child:
    if isinstance(value, Mapping):
        return el("span", "an image, in the run's directory", class_="dim")
    return "" if value is None else clean(str(value))[:2_000]


def _histogram(data: Mapping[str, Any]) -> Child:
    counts = [max(0.0, float(count)) for count in data["counts"]]
    edges = [float(edge) for edge in data["edges"]]
    most, count = max(counts, default=0.0) or 1.0, max(1, len(counts))
    bars = [
        el(
            "rect",
            el("title", f"{edges[at]:.5g} to {edges[at + 1]:.5g}: {value:g}"),
            x=f"{100 * at / count:.3f}%",
            width=f"{max(0.2, 96 / count):.3f}%",
            y=f"{100 - 100 * value / most:.2f}%",
            height=f"{100 * value / most:.2f}%",
        )
        for at, value in enumerate(counts[:1_000])
    ]
    words = f"Histogram from {edges[0]:.5g} to {edges[-1]:.5g}, greatest count {most:g}"
    ends = el("div", el("span", f"{edges[0]:.5g}"), el("span", f"{edges[-1]:.5g}"), class_="ends")
    return [el("svg", bars, class_="bars", role="img", aria_label=words), ends]
