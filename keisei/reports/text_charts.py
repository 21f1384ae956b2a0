"""Draw metrics as text: lines of braille dots, or of marks where dots cannot be shown.

No library serves here. plotext 6 has dropped the interface of 5, and has no types; plotille 6 has
no logarithmic axis and no gaps, a NaN is an error; uniplot, the nearest, brings numpy, warns of
overflows at 1e300, and bounds no label, so that charts would not stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from keisei.reports.panels import Line, Panel, labels, limits, ticks

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_FRAMES = {True: ("│", "┤", "─", "┬", "└"), False: ("|", "+", "-", "+", "+")}
_MARKS = "*o+x#@"
COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue")


class Look(NamedTuple):
    """How charts are drawn.

    Attributes:
        width: columns of a chart, with its labels.
        height: rows of a chart, without title and labels.
        log: whether y is logarithmic.
        unicode: whether more than ASCII can be shown.
        colour: whether colours can be shown.
    """

    width: int
    height: int
    log: bool
    unicode: bool
    colour: bool


def chart(panel: Panel, look: Look) -> list[Text]:
    """Return a panel drawn as lines of text, each of the chart's width."""
    lines = [line for line in panel.lines if line.points.xs]
    head = Text(panel.title, "bold")
    if not lines:
        return [_wide(text, look) for text in (head, Text("nothing to draw", "dim"))]
    xs = limits([f(line.points.xs) for line in lines for f in (min, max)])
    scale = math.log10 if look.log else float
    ys = limits([scale(f(line.points.ys)) for line in lines for f in (min, max)])
    y_ticks = _log_ticks(*ys) if look.log else ticks(*ys, max(3, look.height // 3))
    y_labels = [labels([10**tick])[0] for tick in y_ticks] if look.log else labels(y_ticks)
    gutter = max(map(len, y_labels)) + 1
    inner = max(8, look.width - gutter - 1)
    rows = _rows(lines, (inner, look.height), xs, ys, look)
    bar, tick_mark, dash, below, corner = _FRAMES[look.unicode]
    at = {
        round((ys[1] - tick) / (ys[1] - ys[0]) * (look.height - 1)): label
        for tick, label in zip(y_ticks, y_labels, strict=True)
    }
    drawn = [head]
    for i, row in enumerate(rows):
        side = f"{at.get(i, ''):>{gutter - 1}} {tick_mark if i in at else bar}"
        drawn.append(Text.assemble((side, "dim"), row))
    foot, names = [dash] * inner, " " * (inner + 8)
    x_ticks = ticks(*xs, max(2, inner // 14))
    for tick, label in zip(x_ticks, labels(x_ticks), strict=True):
        column = round((tick - xs[0]) / (xs[1] - xs[0]) * (inner - 1))
        left = max(0, min(column - len(label) // 2, inner - len(label)))
        if not names[max(0, left - 1) : left + len(label) + 1].strip():
            foot[column] = below
            names = names[:left] + label + names[left + len(label) :]
    drawn.append(Text(" " * gutter + corner + "".join(foot), "dim"))
    drawn.append(Text(" " * (gutter + 1) + names[:inner], "dim"))
    return [_wide(text, look) for text in drawn]


def legend(lines: Sequence[Line], look: Look) -> Text:
    """Return text that says which line is which."""
    text, marks = Text(), _marks(lines, look)
    for line in lines:
        sample = ("━━" if look.unicode else "--") if marks is None else marks[id(line)]
        text.append(f"{sample} ", _style(line)).append(f"{line.name}   ")
    text.rstrip()
    return text


def _style(line: Line) -> str:
    return ("dim " if line.pale else "") + COLOURS[line.colour % len(COLOURS)]


def _marks(lines: Sequence[Line], look: Look) -> dict[int, str] | None:
    """Return the mark of each line, where dots would not do."""
    if look.unicode and (look.colour or len(lines) == 1):
        return None
    return {id(line): "." if line.pale else _MARKS[line.colour % len(_MARKS)] for line in lines}


def _rows(
    lines: list[Line],
    size: tuple[int, int],
    xs: tuple[float, float],
    ys: tuple[float, float],
    look: Look,
) -> list[Text]:
    marks = _marks(lines, look)
    fine = (2, 4) if marks is None else (1, 1)
    width, height = size[0] * fine[0], size[1] * fine[1]
    cells: dict[tuple[int, int], tuple[int, Line]] = {}

    def put(x: int, y: int) -> None:
        cell = (y // fine[1], x // fine[0])
        bits, owner = cells.get(cell, (0, line))
        bit = _DOTS[y % 4][x % 2] if marks is None else 0
        cells[cell] = (bits | bit if owner is line or owner.pale else bit, line)

    for line in lines:
        line.points.thin(width)
        for segment_xs, segment_ys in line.points.segments():
            last = None
            for x, y in zip(segment_xs, segment_ys, strict=True):
                y = math.log10(y) if look.log else y
                dot = (
                    round((x - xs[0]) / (xs[1] - xs[0]) * (width - 1)),
                    round((ys[1] - y) / (ys[1] - ys[0]) * (height - 1)),
                )
                for between in _between(last or dot, dot):
                    put(*between)
                last = dot
    drawn = []
    for i in range(size[1]):
        row = Text()
        for j in range(size[0]):
            bits, owner = cells.get((i, j), (0, None))
            if owner is None:
                row.append(" ")
            else:
                mark = chr(0x2800 + bits) if marks is None else marks[id(owner)]
                row.append(mark, _style(owner))
        drawn.append(row)
    return drawn


def _between(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (
            start[0] + round((end[0] - start[0]) * i / steps),
            start[1] + round((end[1] - start[1]) * i / steps),
        )
        for i in range(steps + 1)
    ]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = list(range(math.ceil(low), math.floor(high) + 1))
    if len(decades) > 1:
        return [float(decade) for decade in decades[:: 1 + len(decades) // 6]]
    return [math.log10(tick) for tick in ticks(10**low, 10**high, 4) if tick > 0]


def _wide(text: Text, look: Look) -> Text:
    """Return text of exactly the chart's width."""
    text.truncate(look.width, overflow="ellipsis" if look.unicode else "crop")
    text.append(" " * (look.width - cell_len(text.plain)))
    return text
