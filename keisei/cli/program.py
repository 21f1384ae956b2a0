"""The program itself; each of its commands is a file of its own, which registers itself here."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="keisei",
    help="Owns the life of a training run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


@app.callback()
def program() -> None:
    """Owns the life of a training run."""
