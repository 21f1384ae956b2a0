"""`keisei report`: runs as one file, for people who have nothing but that."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from keisei._io.directories import OpenDirectory
from keisei._io.files import write_atomic
from keisei.analysis.baselines import BASELINE, Choice, find_baselines
from keisei.analysis.checking import Checked, Checker, Options
from keisei.analysis.comparing import compare
from keisei.cli.completion import run_names
from keisei.cli.metric_names import missing, select
from keisei.cli.program import app
from keisei.cli.shared import Json, RegistryUrl, Root, failures_of
from keisei.cli.source import Source, source_of
from keisei.errors import quoted
from keisei.journal.records import SYSTEM
from keisei.reports.gathering import gather
from keisei.reports.markdown import markdown
from keisei.reports.page import html_page
from keisei.run.find import absolute_path
from keisei.store.rows import RunRow

_MOST_RUNS = 20


@app.command()
def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="A run, or several.", autocompletion=run_names),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to; `-` is the standard output."
        ),
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--md", help="Write Markdown, for a pull request, and not HTML.")
    ] = False,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="KEY", help="Draw these metrics, or patterns."),
    ] = None,
    named: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            "-b",
            metavar="RUN",
            help="Judge against this run.",
            autocompletion=run_names,
        ),
    ] = None,
    against: Annotated[
        str, typer.Option("--against", metavar="QUERY", help="Judge against these runs.")
    ] = "",
    media: Annotated[
        float,
        typer.Option("--media", min=0.0, metavar="MB", help="The most media to put into it."),
    ] = 1.0,
    root: Root = None,
    url: RegistryUrl = None,
    as_json: Json = False,
) -> None:
    """Write runs into one HTML file.

    It opens from the disk and asks nothing of the network. Several runs are shown against each
    other. It holds charts, config, code, machine,
    time, cost, media, checkpoints and the end of the log, and verdicts against the runs that have
    the tag `baseline`, or those that --baseline or --against names. Without --output it is
    `RUN.html` (or `RUN.md`) here. It is written whole or not at all, and is its owner's alone.

    Exit status: 0 where it is written, 2 where a run or a metric cannot be found or read or the
    file cannot be written, 130 after Ctrl-C.
    """
    with failures_of("report", "interrupted: nothing is written"):
        source = source_of(root, url)
        rows = [source.one(name) for name in dict.fromkeys(runs)]
        rows = [*{row.directory: row for row in rows}.values()]
        if len(rows) > _MOST_RUNS:
            raise ValueError(f"{len(rows)} runs are named, and {_MOST_RUNS} fit into a report")
        found = gather(rows, lambda keys: _wanted(metrics or (), keys))
        known = [one.row for one in found.runs]
        compared = compare(known, {}) if len(known) > 1 else None
        checked = _checked(source, known, named or (), against)
        if as_markdown:
            content = markdown(found, compared, checked)
        else:
            content = html_page(found, compared, checked, int(media * (1 << 20)))
        suffix = "md" if as_markdown else "html"
        where = output or f"{rows[0].name if len(rows) == 1 else 'runs'}.{suffix}"
        if where == "-":
            sys.stdout.buffer.write(content)
        else:
            _write(where, content)
            told = {"file": absolute_path(where), "bytes": len(content)}
            shown = {**told, "runs": [row.name for row in rows], "metrics": len(found.drawn)}
            text = f"{len(content):,} bytes written to {quoted(where, 300)}"
            sys.stdout.write((json.dumps(shown, indent=2) if as_json else text) + "\n")
        sys.stdout.flush()


def _wanted(metrics: Sequence[str], keys: list[str]) -> list[str]:
    if problem := missing(metrics, keys):
        raise ValueError(problem)
    if metrics:
        return [keys[at] for at in select(metrics, keys)]
    return sorted(keys, key=lambda key: key.startswith(SYSTEM))  # what the machine says comes last


def _checked(
    source: Source, rows: list[RunRow], named: Sequence[str], against: str
) -> dict[str, Checked | str]:
    """Return the verdicts on each run; nothing where nobody has chosen a baseline."""
    if named:
        others = [source.one(name) for name in dict.fromkeys(named)]
    else:
        others, _ = source.find(against or f"tag:{BASELINE}", "started", 0)
    if not others:
        return {}
    choice = Choice(named=[row.directory for row in others] if named else ())
    found: dict[str, Checked | str] = {}
    for row in rows:
        rest = [one for one in others if one.directory != row.directory]
        if not rest:
            found[row.name] = "it is the only baseline itself"
            continue
        counting = find_baselines(row, rest, choice)
        if not counting.chosen:  # its journal need not be read
            reasons = [f"{name}: {'; '.join(why[:3])}" for name, why in counting.left_out.items()]
            found[row.name] = f"no baseline is comparable ({' | '.join(reasons[:3])})"
            continue
        try:
            found[row.name] = Checker([row], rest, Options(choice=choice)).check([row])
        except (OSError, ValueError) as exc:
            found[row.name] = f"it cannot be judged: {exc}"
    return found


def _write(where: str, content: bytes) -> None:
    path = absolute_path(where)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{quoted(where, 300)} is a directory: name a file in it")
    with OpenDirectory(os.path.dirname(path)) as directory:
        write_atomic(directory, os.path.basename(path), content)
