"""`keisei plot`: a run's metrics, drawn in the terminal or to a picture."""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from keisei.cli.completion import run_names
from keisei.cli.metric_names import missing, select, shorten
from keisei.cli.parts import Part, journal_of
from keisei.cli.program import app
from keisei.cli.shared import Keys, Root, Run, failures_of, plain
from keisei.errors import quoted
from keisei.journal.merging import Reduction
from keisei.journal.records import SYSTEM
from keisei.reports.panels import Line, Panel
from keisei.reports.pictures import check_picture, draw_picture
from keisei.reports.series import Axis, Series, has_steps, keys_of, read_series, reduced_series
from keisei.reports.text_charts import Look, chart, legend
from keisei.run.find import find_run, root_of_runs

_IN_TERMINAL, _IN_PICTURE, _NAMED = 9, 16, 64  # the most panels
_TITLE = 48  # columns of a metric's name
_NARROWEST = 56  # columns of a chart beside another one
_TIMES = ((172_800.0, 86_400.0, "days"), (7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0, 1.0, "s"))


@app.command()
def plot(
    run: Run,
    keys: Keys = None,
    root: Root = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Draw to this .png or .svg file."),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="RUN", help="Compare with this run, too.", autocompletion=run_names
        ),
    ] = None,
    part: Part = None,
    reduce: Annotated[
        Reduction | None,
        typer.Option(help="Merge all parts of the run (ranks, members) by step, so."),
    ] = None,
    x: Annotated[Axis | None, typer.Option(help="What x is; steps, if the rows have any.")] = None,
    smooth: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.9999,
            metavar="WEIGHT",
            show_default=False,
            help="How much smoother, from 0 to under 1.",
        ),
    ] = 0.0,
    log_y: Annotated[bool, typer.Option("--log-y", help="A logarithmic y axis.")] = False,
) -> None:
    """Draw a run's metrics in the terminal or to a picture.

    Attempts are merged: what a resumed attempt has done again is drawn once. NaN and infinities
    leave gaps, which are counted. A picture is written whole or not at all.

    Exit status: 0 where something is drawn, 2 where a run or a metric cannot be found or nothing
    can be drawn, 130 after Ctrl-C.
    """
    console = Console(highlight=False, soft_wrap=True)
    with failures_of("plot", "interrupted: nothing is written"):
        kind = check_picture(output) if output is not None else None
        place = root_of_runs(root)
        found_runs = [find_run(place, name) for name in [run, *(others or [])]]
        runs = list(dict.fromkeys(found.directory for found in found_runs))
        journals = [journal_of(directory, part) for directory in runs]
        if reduce is not None and (part is not None or x not in (None, "step")):
            raise ValueError("--reduce merges all parts, by step: it goes with no --part and --x")
        each_part = [
            one
            for run in journals
            for one in ([run, *map(run.of, run.parts())] if reduce is not None else [run])
        ]
        there = list(dict.fromkeys(key for one in each_part for key in keys_of(one)))
        names = _names(runs, console)
        if all(key.startswith(SYSTEM) for key in there) and not keys:
            raise ValueError(f"no metrics have been logged in {', '.join(names)}")
        if problem := missing(keys or [], there):
            raise ValueError(problem)
        wanted = [there[i] for i in select(keys or [], there)]
        if not keys:  # what a run uses of its machine is drawn where it is named
            wanted = [key for key in wanted if not key.startswith(SYSTEM)]
        most = _NAMED if keys else _IN_TERMINAL if kind is None else _IN_PICTURE
        left_out, wanted = wanted[most:], wanted[:most]
        is_system = bool(wanted) and all(key.startswith(SYSTEM) for key in wanted)
        by_step = reduce is not None or (not is_system and any(map(has_steps, journals)))
        axis = x or ("step" if by_step else "time" if is_system else "row")
        with _progress() as show:
            found = [
                read_series(
                    journal,
                    wanted,
                    axis,
                    lambda rows, name=name: show(f"reading {name}: {rows:,} rows"),  # type: ignore[misc]
                    weight=smooth,
                    log=log_y,
                )
                if reduce is None
                else reduced_series(journal, wanted, reduce, weight=smooth, log=log_y)
                for journal, name in zip(journals, names, strict=True)
            ]
            unit = _in_units(found) if axis == "time" else ""
            each = [
                _panel(key, [one[key] for one in found], names, smooth, console) for key in wanted
            ]
            panels = [panel for panel in each if panel is not None]
            if not panels:
                raise ValueError(
                    f"every row with {quoted(wanted[0])} is superseded by a later attempt"
                )
            label = {"step": "step", "row": "row", "time": f"time since the first row, {unit}"}
            if kind is not None and output is not None:
                show("drawing")
                title = " · ".join(names)
                draw_picture(output, kind, title, panels, label[axis], log=log_y)
        if kind is None:
            _print(console, panels, f"{', '.join(names)}, by {label[axis]}", log=log_y)
        else:
            what = "1 metric" if len(panels) == 1 else f"{len(panels)} metrics"
            console.print(Text(plain(f"{what} drawn to {output}", console)))
    if left_out:
        some = ", ".join(shorten(key, _TITLE, console) for key in left_out[:10])
        more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
        console.print(Text(f"left out, to be drawn by name: {some}{more}", "dim"))
    sys.stdout.flush()


def _names(runs: list[str], console: Console) -> list[str]:
    """Return the runs' names; their paths where names are the same."""
    names = list(map(os.path.basename, runs))
    unique = len(set(names)) == len(names)
    return [
        shorten(name if unique else path, 60, console)
        for name, path in zip(names, runs, strict=True)
    ]


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the progress, in a terminal."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("reading") as status:
        yield lambda text: status.update(Text(plain(text, console)))


def _panel(
    key: str, found: list[Series], names: list[str], weight: float, console: Console
) -> Panel | None:
    """Return the panel of a metric; ``None`` where no run has a row of it."""
    if not any(series.rows for series in found):
        return None
    panel = Panel(shorten(key, _TITLE, console))
    smooth = []
    for colour, (series, name) in enumerate(zip(found, names, strict=True)):
        if series.smooth is not None:
            panel.lines.append(Line(f"{name}, as logged", series.points, colour, pale=True))
            smooth.append(Line(f"{name}, smoothed {weight:g}", series.smooth, colour))
        else:
            panel.lines.append(Line(name, series.points, colour))
        if series.note:
            whose = f"{name}: " if len(found) > 1 else ""
            panel.notes.append(f"{whose}{series.note} not drawn")
    panel.lines += smooth
    return panel


def _in_units(found: list[dict[str, Series]]) -> str:
    """Convert seconds to a unit that suits them, and return its name."""
    points = [
        points
        for one in found
        for series in one.values()
        for points in (series.points, series.smooth)
        if points is not None
    ]
    longest = max((max(one.xs) for one in points if one.xs), default=0.0)
    size, unit = next((size, unit) for least, size, unit in _TIMES if longest >= least)
    for one in points:
        one.xs = array("d", [x / size for x in one.xs])
        one.gaps = array("d", [x / size for x in one.gaps])
    return unit


def _print(console: Console, panels: list[Panel], title: str, *, log: bool) -> None:
    """Print charts, side by side where there is room for that."""
    width = max(24, console.width - 1)
    beside = max(1, min(3, len(panels), width // _NARROWEST))
    tall = 10 if len(panels) > 1 else max(10, min(24, console.height - 6))
    unicode = console.encoding.lower().startswith("utf")
    colour = console.is_terminal and not console.no_color
    look = Look(width // beside - 2 * (beside > 1), tall, log, unicode, colour)
    console.print(Text(title, "bold"))
    lines = {line.name: line for panel in panels for line in panel.lines}
    if len(lines) > 1:
        console.print(legend(list(lines.values()), look))
    for i in range(0, len(panels), beside):
        charts = [chart(panel, look) for panel in panels[i : i + beside]]
        for row in zip_longest(*charts, fillvalue=Text(" " * look.width)):
            line = Text("  ").join(row)
            line.rstrip()
            console.print(line)
        console.print()
    for panel in panels:
        if panel.notes:
            console.print(Text(f"{panel.title}: {'; '.join(panel.notes)}", "yellow"))
