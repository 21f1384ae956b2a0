"""What the commands share: where runs live, which run is meant, and what may be printed."""

from __future__ import annotations

import os
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from keisei._text import one_line
from keisei.errors import quoted
from keisei.redaction import clean
from keisei.run import repair
from keisei.run.claim import DEFAULT_ROOT

Run = Annotated[str, typer.Argument(help="The run's name or path.")]
Keys = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY]...", help="Metrics, or patterns (`train/*`); all if none."),
]
Root = Annotated[
    str | None,
    typer.Option("--root", "-r", help="Where runs live: KEISEI_LOG_DIR, this, or `runs`."),
]


def root_of_runs(root: str | None) -> tuple[str, bool]:
    """Give the directory under which runs live, absolute, and whether anybody has named it."""
    named = os.environ.get("KEISEI_LOG_DIR") or root
    return os.path.abspath(os.path.expanduser(named or DEFAULT_ROOT)), named is not None


def find_run(root: str, run: str) -> str:
    """Give the directory of a run, absolute.

    Args:
        root: where runs live.
        run: its name under the root, or its directory's path.

    Raises:
        FileNotFoundError: it is not there; says where it was looked for, and what is.
    """
    try:
        return repair.places(root, [run])[0]
    except ValueError as exc:  # a null byte
        raise FileNotFoundError(f"there is no run {quoted(run)}: {exc}") from exc


def plain(text: str, console: Console) -> str:
    """Escape what is not printable, or not to be written where the output goes."""
    encoding = console.encoding
    return one_line(text).encode(encoding, "backslashreplace").decode(encoding)


def stop(command: str, reason: str, status: int = 1) -> NoReturn:
    """End a command with a line that says why."""
    typer.echo(f"keisei {command}: {one_line(clean(reason))}", err=True)
    raise typer.Exit(status)
