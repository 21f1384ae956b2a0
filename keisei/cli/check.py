"""`keisei check`: whether a run is as good as those before it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from time import sleep
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.analysis.baselines import Choice
from keisei.analysis.checking import Checked, Checker, Options
from keisei.analysis.following import Changes
from keisei.analysis.targets import target_of
from keisei.analysis.verdicts import FALSE_ALARMS, MARGIN, Verdict
from keisei.cli.check_events import Events
from keisei.cli.completion import run_names
from keisei.cli.metric_names import name_in_table
from keisei.cli.program import app
from keisei.cli.shared import (
    Json,
    RegistryUrl,
    Root,
    failures_of,
    plain,
    print_fact,
    table_console,
)
from keisei.cli.source import source_of
from keisei.reports.words import non_finite, shown_value

_COLOURS = {"better": "green", "worse": "red", "undecided": "yellow"}
_MOST_LEFT_OUT = 5
_SHORTEST_NAME = 18  # columns that a metric has in a narrow terminal
_HEAD = ("metric", "verdict", "value", "expected", "noise band", "difference", "why")
_GO_ON = ("running", "elsewhere")  # the states of runs that log more

Patterns = Annotated[
    list[str] | None,
    typer.Option("--metric", "-m", metavar="KEY", help="Judge these metrics, or patterns."),
]


@app.command("check")
def check_runs(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="The run; or several that differ in their seed alone.",
            autocompletion=run_names,
        ),
    ],
    metrics: Patterns = None,
    higher: Annotated[
        list[str] | None,
        typer.Option("--higher", metavar="KEY", help="Of these metrics more is better."),
    ] = None,
    lower: Annotated[
        list[str] | None,
        typer.Option("--lower", metavar="KEY", help="Of these metrics less is better."),
    ] = None,
    against: Annotated[
        str, typer.Option("--against", metavar="QUERY", help="Only these runs may be baselines.")
    ] = "",
    named: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            "-b",
            metavar="RUN",
            help="Only this run is a baseline; may be repeated.",
            autocompletion=run_names,
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target", "-t", metavar="KEY=VALUE", help="Judge the time to this value, too."
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="PATH",
            help="Config values that may differ, or patterns; `machine` is the kind of machine.",
        ),
    ] = None,
    same_code: Annotated[
        bool, typer.Option("--same-code", help="Only runs of the same code may be baselines.")
    ] = False,
    margin: Annotated[
        float,
        typer.Option("--margin", min=0.0, metavar="SHARE", help="The difference that matters."),
    ] = MARGIN,
    follow: Annotated[
        bool, typer.Option("--follow", "-F", help="Check again until the runs have ended.")
    ] = False,
    every: Annotated[
        float,
        typer.Option("--every", min=1.0, metavar="SECONDS", help="How often, with --follow."),
    ] = 60.0,
    record: Annotated[
        bool,
        typer.Option("--record", help="With --follow, log them to the run as events, too."),
    ] = False,
    root: Root = None,
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """Check whether a run is as good as comparable earlier ones.

    There is a verdict for each metric, whose value is the mean of its last tenth, up to the step
    that all runs have reached. It is `better` or `worse` where the value is outside the noise band
    that the earlier runs have, `same` where it differs by less than the margin for sure, and else
    `undecided`: a single run decides less than several with other seeds do.

    With --follow, verdicts on a run that goes on are printed as they change, a line each (with
    --json an object), and logged to the run as events with --record; it ends with the run.

    Exit status: 0 where no metric is worse, 1 where one is, 2 where none could be decided or the
    check cannot be made, 130 after Ctrl-C.
    """
    console = table_console()
    with failures_of("check"):
        source = source_of(root, url)
        wanted = list(dict.fromkeys(runs))
        new = [source.one(name) for name in wanted]
        others = [source.one(name) for name in dict.fromkeys(named or ())]
        choice = Choice(ignore or (), same_code, [row.directory for row in others])
        options = Options(
            metrics or (),
            higher or (),
            lower or (),
            dict(map(target_of, targets or ())),
            choice,
            margin,
        )
        if not named:
            others, _ = source.find(against, "started", 0)
        checker = Checker(new, others, options)
        found = checker.check(new)
        live, changes = [row for row in new if row.status in _GO_ON], Changes()
        if record and not follow:
            raise ValueError("--record goes with --follow")
        with Events(live, is_on=record) as events:
            while follow and any(row.status in _GO_ON for row in new):
                fresh = changes.of(found.verdicts)
                events.log({key: _verdict_as_data(one) for key, one in fresh.items()})
                _print_changes(fresh, as_json, console)
                sleep(every)
                new = [source.one(name) for name in wanted]
                found = checker.check(new)
        if as_json:
            text = json.dumps(_as_data(found), indent=None if follow else 2)
            sys.stdout.write(text + "\n")
        else:
            _print(found, console)
        sys.stdout.flush()
    raise typer.Exit(status_of(found))


def status_of(found: Checked) -> int:
    """Return the exit status of a check."""
    outcomes = {one.outcome for one in found.verdicts.values()}
    if "worse" in outcomes:
        return 1
    return 0 if outcomes & {"better", "same"} else 2


def _print(found: Checked, console: Console) -> None:
    runs = found.runs.items()
    if found.verdicts:
        _print_verdicts(found.verdicts, console)
    else:
        console.print("There is no metric to judge.")
    names = [name if status == "completed" else f"{name} ({status})" for name, status in runs]
    number = len(found.baselines)
    text = f"{', '.join(names)} against {number} {found.kind} {'run' if number == 1 else 'runs'}"
    console.print(Text(plain(text, console), "dim"))
    if found.unknown:
        unknown = ", ".join(name_in_table(key, console) for key in found.unknown[:10])
        more = f" and {len(found.unknown) - 10} more" if len(found.unknown) > 10 else ""
        text = f"Not judged, say which way they are better by --higher or --lower: {unknown}{more}"
        console.print(Text(plain(text, console), "dim"))
    if not found.baselines or len(found.left_out) <= _MOST_LEFT_OUT:
        for name, reasons in list(found.left_out.items())[:_MOST_LEFT_OUT]:
            text = f"{name} does not count: {'; '.join(reasons[:3])}"
            console.print(Text(plain(text, console), "dim"))
    elif found.left_out:
        text = f"{len(found.left_out)} other runs do not count; --json says why"
        console.print(Text(text, "dim"))


def _print_verdicts(verdicts: Mapping[str, Verdict], console: Console) -> None:
    """Print a line for each metric; in a terminal that is too narrow, why it is so below them."""
    rows = {key: _cells(key, one, console) for key, one in verdicts.items()}
    columns = zip(_HEAD, *rows.values(), strict=True)
    widths = {name: max(map(len, cells)) + 2 for name, cells in zip(_HEAD, columns, strict=True)}
    is_wide = sum(widths.values()) <= console.width + 2
    names = list(_HEAD) if is_wide else _fitting(widths, console.width + 2)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("metric", overflow="fold")
    for name in names[1:]:
        justify: Literal["left", "right"] = "left" if name in ("verdict", "why") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    reasons: dict[tuple[str, str], list[str]] = {}
    for key, cells in rows.items():
        shown = {name: Text(cell) for name, cell in zip(_HEAD, cells, strict=True)}
        shown["verdict"].stylize(_COLOURS.get(verdicts[key].outcome, ""))
        table.add_row(*(shown[name] for name in names))
        reasons.setdefault((verdicts[key].outcome, cells[-1]), []).append(cells[0])
    console.print(table)
    for (outcome, reason), metrics in reasons.items() if not is_wide else ():
        print_fact(outcome, f"{reason}: {', '.join(metrics)}", console)


def _fitting(widths: Mapping[str, int], most: int) -> list[str]:
    """Return the columns that leave the metrics' names enough of a narrow terminal to be read."""
    names = [name for name in _HEAD if name not in ("expected", "why")]
    for name in ("noise band", "difference", "value"):
        others = sum(widths[one] for one in names[1:])
        if min(widths["metric"], _SHORTEST_NAME) + others > most:
            names.remove(name)
    return names


def _print_changes(found: Mapping[str, Verdict], as_json: bool, console: Console) -> None:
    """Print verdicts as they have changed by now."""
    now = datetime.now().astimezone()
    for key, one in found.items():
        if as_json:
            time = now.isoformat(timespec="seconds")
            line = {"time": time, "metric": key, **_verdict_as_data(one)}
            sys.stdout.write(json.dumps(line) + "\n")
            continue
        _, outcome, value, expected, band, gap, reason = _cells(key, one, console)
        text = f"{now:%H:%M:%S}  {key}: {outcome}, {value}, and {expected} is expected ({gap}): "
        text += f"{reason} ({band})"
        console.print(Text(plain(text, console), _COLOURS.get(one.outcome, "")))
    sys.stdout.flush()


def _verdict_as_data(one: Verdict) -> dict[str, object]:
    return {
        name: non_finite(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(one).items()
    }


def _cells(key: str, one: Verdict, console: Console) -> list[str]:
    band = "-" if one.low is None else f"{one.low:.5g} to {one.high:.5g}"
    gap = "-" if one.difference is None else f"{one.difference:+.1%}"
    values = (shown_value(one.value), shown_value(one.expected))
    return [
        name_in_table(key, console),
        one.outcome,
        *values,
        band,
        gap,
        plain(one.reason, console),
    ]


def _as_data(found: Checked) -> dict[str, object]:
    return {
        "runs": found.runs,
        "baselines": found.baselines,
        "kind": found.kind,
        "false_alarms": FALSE_ALARMS,
        "verdicts": {key: _verdict_as_data(one) for key, one in found.verdicts.items()},
        "not_judged": found.unknown,
        "left_out": found.left_out,
    }
