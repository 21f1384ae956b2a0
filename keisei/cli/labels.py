"""`keisei tag`, `untag` and `note`: what people say of runs, kept in their directories."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from keisei.cli.known import Known
from keisei.cli.program import app
from keisei.cli.shared import RegistryUrl, Root, Run, failures_of, plain
from keisei.run import labels
from keisei.run.labels import Labels

Tags = Annotated[list[str], typer.Argument(metavar="TAG...", help="The tags.")]


@app.command()
def tag(run: Run, tags: Tags, root: Root = None, url: RegistryUrl = None) -> None:
    """Tag a run; the tags that it has stay.

    Exit status: 0 where it has the tags, 2 where the run cannot be found or written, or a tag is
    none, 130 after Ctrl-C.
    """
    _change("tag", run, root, url, partial(labels.tagged, tags=tags))


@app.command()
def untag(run: Run, tags: Tags, root: Root = None, url: RegistryUrl = None) -> None:
    """Remove tags from a run.

    Exit status: 0 where it does not have the tags, 2 where the run cannot be found or written, 130
    after Ctrl-C.
    """
    _change("untag", run, root, url, partial(labels.untagged, tags=tags))


@app.command()
def note(
    run: Run,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The note; an empty one removes it.")],
    root: Root = None,
    url: RegistryUrl = None,
) -> None:
    """Write a run's note, in place of the one that it has.

    Exit status: 0 where it has the note, 2 where the run cannot be found or written, or the note is
    too long, 130 after Ctrl-C.
    """
    _change("note", run, root, url, partial(labels.noted, note=text))


def _change(
    command: str, run: str, root: str | None, url: str | None, change: Callable[[Labels], Labels]
) -> None:
    console = Console(highlight=False, soft_wrap=True)
    with failures_of(command):
        known = Known(command, url)
        found = known.find(run, root)
        now = labels.change_labels(found.directory, change)
        tags = f"tags: {', '.join(now.tags)}" if now.tags else "no tags"
        note = f"note: {now.note}" if now.note else "no note"
        console.print(Text(plain(f"{found.name}: {tags}; {note}", console)))
        known.update(found.directory)
