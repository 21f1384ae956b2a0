"""Media as W&B's own objects, made from their files."""

from __future__ import annotations

import html
import json
import os
import re
from typing import Any

from keisei._log import logger
from keisei.errors import describe, quoted
from keisei.journal.media import KINDS as _ALL
from keisei.journal.media import Media
from keisei.trackers.media import image_in, plain_cell, read_json

KINDS = tuple(sorted(_ALL))
_MOST_BINS = 512
_MOST_ROWS = 10_000
_LONGEST_TEXT = 1 << 20
_VIDEOS = (".mp4", ".webm", ".gif", ".ogg")


def object_of(module: Any, native: Any, media: Media) -> Any:
    """Return what W&B shows for one; ``None`` where it has nothing for it.

    Args:
        module: the SDK.
        native: the SDK's run; an offline one gets no artifacts, which `keisei sync` sends of a run
            that is trusted alone, and of which W&B's tables are made.
        media: what to show; its file is read.
    """
    suffix = os.path.splitext(media.path)[1]
    try:
        if suffix == ".json" and media.kind == "figure":
            return _plotly(module, media)
        if media.kind in ("image", "figure"):
            return module.Image(media.path, caption=media.caption)
        if media.kind == "video" and suffix in _VIDEOS:
            return module.Video(media.path, caption=media.caption, format=suffix[1:])
        if media.kind == "audio":
            return module.Audio(media.path, caption=media.caption)
        if media.kind == "histogram":
            found = read_json(media)
            counts, edges = found["counts"], found["edges"]
            return _histogram(module, counts, edges)
        if media.kind == "table" and getattr(native, "offline", False):
            return module.Html(_html(media), inject=False)
        if media.kind == "table":
            return _table(module, media)
        if media.kind == "text":
            with open(media.path, encoding="utf-8", errors="replace") as file:
                text = html.escape(file.read(_LONGEST_TEXT))
            return module.Html(f"<pre style='white-space: pre-wrap'>{text}</pre>", inject=False)
    except Exception as exc:  # noqa: BLE001 - the SDK's own, and the rows behind it have to go on
        say(media, exc)
    return None


def send_artifact(module: Any, native: Any, media: Media) -> None:
    """Log the file of one as an artifact of an online run; what fails is a warning."""
    if getattr(native, "offline", False):
        return
    try:
        name = re.sub(r"[^A-Za-z0-9_.-]", "-", media.name)[:120]
        metadata = {"step": media.step, "caption": media.caption, "sha256": media.digest}
        artifact = module.Artifact(name, type="file", metadata=metadata)
        shown = media.about.get("file_name")
        inside = shown if isinstance(shown, str) and shown else os.path.basename(media.path)
        artifact.add_file(media.path, name=inside, policy="immutable", skip_cache=True)
        native.log_artifact(artifact)
    except Exception as exc:  # noqa: BLE001 - the SDK's own
        say(media, exc)


def _histogram(module: Any, counts: list[Any], edges: list[Any]) -> Any:
    """Return a histogram of as many bins as W&B takes, each of several neighbours."""
    step = -(-len(counts) // _MOST_BINS)
    joined = [sum(counts[at : at + step]) for at in range(0, len(counts), step)]
    return module.Histogram(np_histogram=(joined, [*edges[:-1:step], edges[-1]]))


def _table(module: Any, media: Media) -> Any:
    found = read_json(media)
    rows = []
    for row in found["rows"][:_MOST_ROWS]:
        cells = [(cell, image_in(cell, media)) for cell in row]
        rows.append([module.Image(path) if path else plain_cell(cell) for cell, path in cells])
    return module.Table(columns=found["columns"], data=rows, allow_mixed_types=True)


def _html(media: Media) -> str:
    found = read_json(media)
    rows = [found["columns"], *([plain_cell(cell) for cell in row] for row in found["rows"])]
    cells = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells[: _MOST_ROWS + 1]) + "</table>"


def _plotly(module: Any, media: Media) -> Any:
    from plotly import io

    with open(media.path, encoding="utf-8") as file:
        return module.Plotly(io.from_json(json.dumps(json.load(file))))


def say(media: Media, exc: Exception) -> None:
    """Warn that W&B cannot show one, and why."""
    text = "W&B cannot show %s %s, which the run's media/ has: %s"
    logger.warning(text, media.kind, quoted(media.name), describe(exc))
