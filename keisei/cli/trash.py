"""`keisei rm` and `restore`: move runs to the trash, and bring them back."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from keisei.cli.completion import removed_names, run_names
from keisei.cli.known import Known
from keisei.cli.program import app
from keisei.cli.shared import RegistryUrl, Root, failures_of, plain
from keisei.run import trash
from keisei.run.find import root_of_runs

Named = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Names or paths.", autocompletion=run_names),
]
Removed = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Names or paths.", autocompletion=removed_names),
]


@app.command()
def rm(
    runs: Named,
    root: Root = None,
    gone: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="What cannot be seen on this host is known to be gone."),
    ] = None,
    url: RegistryUrl = None,
) -> None:
    """Move runs to the trash.

    That is `.trash` in their root. A run whose owner lives, or may live, is refused. Nothing is
    deleted: `keisei restore RUN` brings a run back, and removing the directory in the trash frees
    its space. Models that live outside the run's directory stay where they are.

    Exit status: 0 where all are in the trash, 2 where a run cannot be found or moved, 130 after
    Ctrl-C.
    """
    console = Console(highlight=False, soft_wrap=True)
    with failures_of("rm"):
        known = Known("rm", url)
        named = [known.find(name, root) for name in runs]
        for found in {run.directory: run for run in named}.values():
            where = trash.remove(found.directory, gone or ())
            text = f"{found.name} is in the trash: {where}; keisei restore {found.name}"
            console.print(Text(plain(text, console)))
            known.update(found.directory)


@app.command()
def restore(runs: Removed, root: Root = None, url: RegistryUrl = None) -> None:
    """Bring runs back from the trash.

    Of one name it is the run that was removed last.

    Exit status: 0 where all are back, 2 where one is not in the trash, or its name is taken, 130
    after Ctrl-C.
    """
    console = Console(highlight=False, soft_wrap=True)
    with failures_of("restore"):
        known = Known("restore", url)
        for name in runs:
            where = trash.restore(root_of_runs(root), name)
            console.print(Text(plain(f"{name} is back: {where}", console)))
            known.update(where)
