"""Figures: matplotlib's become a PNG, plotly's the JSON that plotly draws them from.

Drawing a figure of matplotlib's takes 50 ms and more, and no two threads may touch one at a time.
What the call takes is its pickle, some ms; the thread that draws makes another figure of it, which
nobody else has. One that does not pickle is drawn at the call.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import Any

from keisei.errors import MediaError, describe
from keisei.media.formats import image_header
from keisei.media.values import Content, Taken


def take_figure(figure: Any) -> Taken:
    """Take a figure of matplotlib's or of plotly's.

    Raises:
        MediaError: it is none, or cannot be drawn.
    """
    kinds = {f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(figure).__mro__}
    if "matplotlib.Figure" in kinds:
        return _take_matplotlib(figure)
    if "plotly.BaseFigure" in kinds:
        return _take_plotly(figure)
    hint = ""
    if hasattr(figure, "get_figure") or hasattr(figure, "figure"):
        hint = ": give its figure (axes.figure)"
    raise MediaError(
        f"figure: must be a figure of matplotlib's or plotly's, not {type(figure).__name__}{hint}"
    )


class _Pickler(pickle.Pickler):
    """Pickles a figure without what pyplot knows of it, which would open a window for the copy."""

    def __init__(self, file: io.BytesIO, figure: Any) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._figure = figure

    def reducer_override(self, value: Any) -> Any:
        if value is not self._figure:
            return NotImplemented
        state = value.__getstate__()
        state.pop("_restore_to_pylab", None)
        return copyreg.__newobj__, (type(value),), state  # type: ignore[attr-defined]


def _take_matplotlib(figure: Any) -> Taken:
    file = io.BytesIO()
    try:
        _Pickler(file, figure).dump(figure)
    except Exception:  # noqa: BLE001 - a user's own formatter, for one: then it is drawn here
        content = _drawn(figure)
        return Taken(len(content.data or b""), lambda keep: content)
    data = file.getvalue()
    return Taken(len(data), lambda keep: _drawn(pickle.loads(data)))


def _drawn(figure: Any) -> Content:
    file = io.BytesIO()
    try:
        figure.savefig(file, format="png")
    except Exception as exc:
        raise MediaError(f"figure: matplotlib cannot draw it: {describe(exc)}") from exc
    data = file.getvalue()
    header = image_header(data)
    about = {} if header is None else {"width": header.width, "height": header.height}
    return Content("figure", ".png", data, about=about)


def _take_plotly(figure: Any) -> Taken:
    try:
        text = figure.to_json()
    except Exception as exc:
        raise MediaError(f"figure: plotly makes no JSON of it: {describe(exc)}") from exc
    content = Content("figure", ".json", text.encode("utf-8", "replace"), about={"by": "plotly"})
    return Taken(len(text), lambda keep: content)
