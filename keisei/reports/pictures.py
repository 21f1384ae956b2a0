"""Draw metrics to a picture with matplotlib, without a display and without its global state."""

from __future__ import annotations

import io
import math
import os
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

from keisei._io import files
from keisei.errors import MissingExtraError, quoted
from keisei.reports.panels import Panel, labels, limits

COLUMNS = 1000  # points of a panel's width, to which lines are thinned
_KINDS = {".png": "png", ".svg": "svg"}
_FEW = 80  # points that are marked, each
# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelcolor": "#444444",
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "font.family": ["sans-serif"],
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "path.simplify": True,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def check_picture(path: str) -> str:
    """Check that a picture can be written, and return its kind; nothing is drawn yet.

    Args:
        path: the picture's file.

    Raises:
        ValueError: the name does not end in `.png` or `.svg`.
        OSError: the directory is missing, or the file exists and is not such a picture.
        MissingExtraError: matplotlib is not installed.
    """
    kind = _KINDS.get(os.path.splitext(path)[1].lower())
    if kind is None:
        raise ValueError(f"{quoted(path, 300)}: a picture's name ends in .png or .svg")
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise FileNotFoundError(f"there is no directory for {quoted(path, 300)}")
    if os.path.exists(path):
        if not os.path.isfile(path):
            raise OSError(f"{quoted(path, 300)} is not a file")
        with open(path, "rb") as file:
            start = file.read(1024)
        there = start.startswith(b"\x89PNG\r\n\x1a\n") if kind == "png" else b"<svg" in start
        if start and not there:
            raise FileExistsError(
                f"{quoted(path, 300)} is not a {kind.upper()}: it is left as it is"
            )
    try:
        import matplotlib  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError(f'a picture needs {exc.name}: pip install "keisei[plot]"') from exc
    return kind


def draw_picture(
    path: str, kind: str, title: str, panels: Sequence[Panel], x_label: str, *, log: bool
) -> None:
    """Draw panels to a file, which is written whole or not at all.

    Args:
        path: the file.
        kind: `png` or `svg`.
        title: what stands above all.
        panels: what to draw.
        x_label: what x is.
        log: whether y is logarithmic.

    Raises:
        OSError: it cannot be written; an old picture is as it was.
    """
    import matplotlib
    from matplotlib.figure import Figure

    wide = 1 if len(panels) == 1 else 2 if len(panels) <= 4 else 3
    high = math.ceil(len(panels) / wide)
    size = (9.0, 5.0) if wide == 1 else (5.4 * wide, 3.1 * high + 0.5)
    data = io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a glyph that no font has is drawn as a box
        figure: Any = Figure(figsize=size, dpi=150, layout="constrained", facecolor="white")
        axes = list(figure.subplots(high, wide, squeeze=False).flat)
        named: dict[str, Any] = {}
        for ax in axes[len(panels) :]:
            ax.remove()
        for i, (ax, panel) in enumerate(zip(axes, panels, strict=False)):
            _draw_panel(ax, panel, named, log=log)
            if i + wide >= len(panels):
                ax.set_xlabel(x_label)
        lines = textwrap.fill(title, int(10 * size[0]), break_on_hyphens=False)
        figure.suptitle(lines, fontsize=12, color="#222222")
        if len(named) > 1:
            _draw_legend(figure, named)
        figure.savefig(data, format=kind, metadata={"Date": None} if kind == "svg" else None)
    target = os.path.realpath(path)
    with files.OpenDirectory(os.path.dirname(target)) as directory:
        files.write_atomic(directory, os.path.basename(target), data.getvalue())


def _draw_legend(figure: Any, named: dict[str, Any]) -> None:
    """Draw the names of the lines below all, in as many columns as fit beside each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    for columns in range(min(4, len(named)), 0, -1):
        legend = figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=columns
        )
        box = legend.get_window_extent(canvas.get_renderer())
        if columns == 1 or box.width < 0.98 * figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
            break
        legend.remove()


def _draw_panel(ax: Any, panel: Panel, named: dict[str, Any], *, log: bool) -> None:
    """Draw a panel into matplotlib's axes, and add its lines to those that are named."""
    from matplotlib.ticker import FuncFormatter

    formatter: Any = FuncFormatter(lambda value, position: labels([value])[0])
    formatter.format_ticks = lambda values: labels(values) if len(values) else []
    ax.set_title(panel.title)
    ax.xaxis.set_major_formatter(formatter)
    drawn = [line for line in panel.lines if line.points.xs]
    if log and drawn:
        ax.set_yscale("log")
    elif drawn:
        ax.yaxis.set_major_formatter(formatter)
        ends = [end(line.points.ys) for line in drawn for end in (min, max)]
        if limits(ends) != (min(ends), max(ends)):
            ax.set_ylim(*limits(ends))
    for line in drawn:
        line.points.thin(COLUMNS)
        xs, ys, lone = [], [], []
        for segment_xs, segment_ys in line.points.segments():
            xs += [*segment_xs, math.nan]
            ys += [*segment_ys, math.nan]
            if len(segment_xs) == 1:
                lone.append(len(xs) - 2)
        (named[line.name],) = ax.plot(
            xs,
            ys,
            color=_COLOURS[line.colour % len(_COLOURS)],
            linewidth=0.9 if line.pale else 1.5,
            alpha=0.3 if line.pale else 1.0,
            marker=".",
            markevery=lone if len(xs) > _FEW else None,
            markersize=5,
        )
    if panel.notes:
        note = "\n".join(panel.notes)
        box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
        where = {"transform": ax.transAxes, "ha": "right", "va": "top", "bbox": box}
        ax.text(0.99, 0.98, note, fontsize=7.5, color="#a04000", **where)
    if not drawn:
        ax.text(0.5, 0.5, "nothing to draw", transform=ax.transAxes, ha="center", color="#888888")
