"""What the commands share: their common options, how they fail, and what may be printed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import wrap
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from keisei._text import one_line
from keisei.cli.completion import run_names
from keisei.errors import KeiseiError, quoted
from keisei.redaction import clean

FAILED, INTERRUPTED = 2, 130  # exit statuses
_INDENT = 14  # columns before what is known
_UNBOUNDED = 10_000  # columns

COLOURS = {  # of the states of runs
    "running": "green",
    "elsewhere": "cyan",
    "completed": "green",
    "cancelled": "yellow",
    "preempted": "yellow",
    "failed": "magenta",
    "lost": "red",
    "died": "red",
    "corrupt": "red",
    "no session file": "red",
    "unreadable": "red",
}

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's name or path.", autocompletion=run_names)
]
Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN", help="Names or paths; all if none.", autocompletion=run_names),
]
Keys = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY", help="Metrics, or patterns (`train/*`); all if none."),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        "-r",
        metavar="DIR",
        help="Where runs live; else KEISEI_LOG_DIR, else `runs`.",
    ),
]
RegistryUrl = Annotated[
    str | None,
    typer.Option("--registry", metavar="URL", help="The registry; else KEISEI_REGISTRY_URL."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@contextmanager
def failures_of(command: str, interrupted: str = "") -> Iterator[None]:
    """End a command that fails with one line that says why, and its exit status.

    Args:
        command: the command's name.
        interrupted: what to print after Ctrl-C, if anything.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        named = exc.filename is not None and exc.strerror is not None
        stop(command, f"{quoted(exc.filename, 300)}: {exc.strerror}" if named else str(exc))
    except (ValueError, KeiseiError) as exc:
        stop(command, str(exc))
    except KeyboardInterrupt:
        stop(command, interrupted, INTERRUPTED)


def stop(command: str, reason: str, status: int = FAILED) -> NoReturn:
    """End a command; where there is a reason, print it to stderr."""
    if reason:
        typer.echo(f"keisei {command}: {one_line(clean(reason))}", err=True)
    raise typer.Exit(status)


def table_console() -> Console:
    """Return a console for tables: where no terminal bounds it, no cell is cut or folded."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBOUNDED
    return console


def is_bounded(console: Console) -> bool:
    """Return whether lines have to fit into a width: in a terminal, or where COLUMNS is set."""
    return console.width < _UNBOUNDED


def plain(text: str, console: Console) -> str:
    """Escape what is not printable, or cannot be encoded where the output goes."""
    encoding = console.encoding
    return one_line(text).encode(encoding, "backslashreplace").decode(encoding)


def print_note(text: str, console: Console, style: str = "") -> None:
    """Print a line that stands apart by two columns; in a terminal folded between words.

    Args:
        text: the line.
        console: where it goes.
        style: how it looks.
    """
    lines = [plain(text, console)]
    if is_bounded(console):
        lines = wrap(lines[0], max(20, console.width - 2), break_on_hyphens=False)
    console.print(Text("\n".join(f"  {line}" for line in lines), style))


def print_fact(name: str, value: str, console: Console, style: str = "") -> None:
    """Print a name and what is known of it; in a terminal folded between words, below its begin.

    A word that is longer than a line, such as a path, stays whole.
    """
    lines = [plain(value, console)]
    if is_bounded(console):
        width = max(20, console.width - _INDENT)
        lines = wrap(lines[0], width, break_long_words=False, break_on_hyphens=False) or [""]
    first, *others = lines
    lines = [f"  {name:<11} {first}", *(" " * _INDENT + line for line in others)]
    console.print(Text("\n".join(lines), style))
