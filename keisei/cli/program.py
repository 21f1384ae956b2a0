"""The program itself. Each command is a module that registers itself here when it is imported."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated

import typer

import keisei

COMMANDS = {
    "baseline": "Choose the runs that others are checked against.",
    "cancel": "End runs gracefully, on whichever host they run.",
    "check": "Check whether a run is as good as comparable earlier ones.",
    "checkpoints": "List a run's checkpoints, and verify them.",
    "compare": "Show in what runs differ.",
    "doctor": "Check runs: their state, their owners, and what is damaged.",
    "export": "Write what runs have logged as CSV, Parquet or JSON lines.",
    "ls": "List runs, filtered and sorted.",
    "note": "Write a run's note, in place of the one that it has.",
    "plot": "Draw a run's metrics in the terminal or to a picture.",
    "registry": "Make the registry again, or look at it.",
    "report": "Write runs into one HTML file.",
    "restore": "Bring runs back from the trash.",
    "rm": "Move runs to the trash.",
    "show": "Show one run, its labels, metrics and origin.",
    "sync": "Send trackers what they have not got of the runs.",
    "tag": "Tag a run; the tags that it has stay.",
    "tail": "Show what a run logs, as it comes, until it has ended.",
    "ui": "Show runs in a browser, live, until Ctrl-C.",
    "untag": "Remove tags from a run.",
}
_MODULES = {"note": "labels", "restore": "trash", "rm": "trash", "tag": "labels", "untag": "labels"}
_STATUSES = (
    "Exit status: 0 all is well; 1 a run needs attention, something has not been sent, or a "
    "metric is missing; 2 the command could not do what was asked; 130 after Ctrl-C."
)

app = typer.Typer(
    name="keisei",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"keisei {keisei.__version__}")
        raise typer.Exit


@app.callback(epilog=_STATUSES)
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Owns the life of a training run."""


def register(command: str) -> None:
    """Import the module of a command, which registers it."""
    importlib.import_module(f"keisei.cli.{_module_of(command)}")


def load(arguments: Sequence[str]) -> None:
    """Import the command that is named, or register the names of all, for the help.

    Args:
        arguments: the program's arguments.
    """
    named = next((word for word in arguments if not word.startswith("-")), None)
    if named in COMMANDS:
        register(named)
        return
    _name_all()


def load_for_completion(line: str) -> None:
    """Import the command that a line names, and register the names of all.

    Args:
        line: what a shell wants completed; its last word may be the beginning of another name.
    """
    named = next((word for word in line.split()[1:] if not word.startswith("-")), "")
    if named in COMMANDS:
        register(named)
    _name_all(besides=_module_of(named))


def _name_all(besides: str = "") -> None:
    for name, summary in COMMANDS.items():
        if _module_of(name) != besides:
            app.command(name, help=summary)(lambda: None)


def _module_of(command: str) -> str:
    return _MODULES.get(command, command)
