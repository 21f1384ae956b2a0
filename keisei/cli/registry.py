"""`keisei registry`: make the registry again from the directories, and look at it."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from keisei.cli.program import app
from keisei.cli.shared import Json, RegistryUrl, failures_of, plain
from keisei.run.find import root_of_runs
from keisei.store.opening import Opened, url_of
from keisei.store.rebuilding import rebuild as rebuild_rows

registry = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Exit status: 0 it is done; 1 a directory is the copy of another run; 2 it cannot be "
    "done; 130 after Ctrl-C.",
)
app.add_typer(registry, name="registry", help="Make the registry again, or look at it.")

Roots = Annotated[
    list[str] | None,
    typer.Argument(metavar="ROOT", help="Where runs live; else KEISEI_LOG_DIR, else `runs`."),
]


@registry.command()
def rebuild(roots: Roots = None, url: RegistryUrl = None, as_json: Json = False) -> None:
    """Make the registry's rows of some roots again, from the directories.

    Exit status: 0 where it is done, 1 where a directory is the copy of another run and has no row,
    2 where a root cannot be read or the database cannot be used, 130 after Ctrl-C.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    with failures_of("registry rebuild", "interrupted: start it again to go on"):
        opened = Opened(url_of(url))
        where = [root_of_runs(root) for root in roots] if roots else [root_of_runs()]
        with console.status("reading runs") if console.is_terminal else nullcontext():
            done = rebuild_rows(opened, where)
        if as_json:
            sys.stdout.write(json.dumps(asdict(done), indent=2) + "\n")
        for copy, first in done.copies.items():
            text = f"{copy} is a copy of {first}, and has no row of its own"
            console.print(Text(plain(text, console), "yellow"))
        text = f"{done.runs:,} runs are in the registry; {done.forgotten:,} were forgotten"
        console.print(Text(text))
        sys.stdout.flush()
    raise typer.Exit(1 if done.copies else 0)


@registry.command()
def status(url: RegistryUrl = None, as_json: Json = False) -> None:
    """Show which database the registry is in, its schema, and how many runs it has.

    Exit status: 0 where it can be used, 2 where it cannot, 130 after Ctrl-C.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    with failures_of("registry status"):
        opened = Opened(url_of(url))
        database, counts = opened.database(), opened.statuses("")
        from keisei.store.schema import VERSION

        about = {
            "url": database.shown,
            "registry": database.registry,
            "schema": VERSION,
            "runs": counts.total(),
            "statuses": dict(counts.most_common()),
        }
        if as_json:
            sys.stdout.write(json.dumps(about, indent=2) + "\n")
        else:
            states = ", ".join(f"{number:,} {state}" for state, number in counts.most_common())
            console.print(Text(plain(f"{database.shown}: schema {VERSION}", console)))
            console.print(Text(f"{counts.total():,} runs{': ' if states else ''}{states}"))
        sys.stdout.flush()
