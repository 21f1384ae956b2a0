"""`keisei baseline`: which runs others are checked against, by their tag."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from keisei.analysis.baselines import BASELINE
from keisei.cli.completion import run_names
from keisei.cli.program import app
from keisei.cli.shared import RegistryUrl, Root, failures_of, plain
from keisei.cli.source import source_of
from keisei.run import labels
from keisei.run.find import find_run, root_of_runs

baseline = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Exit status: 0 it is done; 2 it cannot be done; 130 after Ctrl-C.",
)
app.add_typer(baseline, name="baseline", help="Choose the runs that others are checked against.")

Runs = Annotated[
    list[str],
    typer.Argument(metavar="RUN", help="Names or paths of runs.", autocompletion=run_names),
]


@baseline.command("set")
def set_baseline(runs: Runs, root: Root = None) -> None:
    """Make runs baselines: they get the tag `baseline`, and no untagged run counts beside them.

    Exit status: 0 where all have it, 2 where a run cannot be found or written, 130 after Ctrl-C.
    """
    _change("baseline set", runs, root, is_one=True)


@baseline.command("unset")
def unset_baseline(runs: Runs, root: Root = None) -> None:
    """Take runs from the baselines.

    Exit status: 0 where none has the tag, 2 where a run cannot be found or written, 130 after
    Ctrl-C.
    """
    _change("baseline unset", runs, root, is_one=False)


@baseline.command("ls")
def list_baselines(root: Root = None, url: RegistryUrl = None) -> None:
    """List the baselines, one name on a line.

    Exit status: 0 also where there is none, 2 where runs cannot be listed, 130 after Ctrl-C.
    """
    console = Console(highlight=False, soft_wrap=True)
    with failures_of("baseline ls"):
        found, _ = source_of(root, url).find(f"tag:{BASELINE}", "started", 0)
        for row in found:
            console.print(Text(plain(row.name, console)))


def _change(command: str, runs: list[str], root: str | None, *, is_one: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    change = labels.tagged if is_one else labels.untagged
    with failures_of(command):
        for found in [find_run(root_of_runs(root), run) for run in dict.fromkeys(runs)]:
            labels.change_labels(found.directory, partial(change, tags=[BASELINE]))
            text = f"{found.name} is {'a' if is_one else 'no'} baseline"
            console.print(Text(plain(text, console)))
