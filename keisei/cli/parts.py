"""Which part of a run a command shows: a rank's, a member's, or the owner's own."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from keisei._io.directories import OpenDirectory
from keisei.errors import quoted
from keisei.journal.reader import RunJournal, read_run
from keisei.run.part_file import check_part, rank_of
from keisei.run.parts import parts_of

Part = Annotated[
    str | None,
    typer.Option(metavar="PART", help="A rank or a member: rank3, rollout-3; else the owner."),
]

_SHOWN = 10  # parts that a message names


def parts_in_words(directory: str, attempt: int | None) -> str | None:
    """Return how the parts of a run's attempt stand; ``None`` where it has none, or not here.

    Args:
        directory: the run's directory, which may be another host's.
        attempt: the attempt; ``None`` for the last one of each part.
    """
    try:
        with OpenDirectory(directory) as opened:
            found = parts_of(opened, attempt)
    except OSError:
        return None
    counts = Counter(part.state for part in found)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    names = ", ".join(part.part for part in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{states} ({names}{more})" if found else None


def journal_of(directory: str, part: str | None) -> RunJournal:
    """Return the reader of a part's journals.

    Args:
        directory: the run's directory.
        part: the part; ``None`` or ``rank0`` for the owner's own.

    Raises:
        ValueError: no part can have that name.
        FileNotFoundError: the run has no such part; the message says which it has.
    """
    run = read_run(directory)
    if part is None or rank_of(part) == 0:
        return run
    there = run.parts()
    if check_part(part) not in there:
        shown = ", ".join(there[:_SHOWN]) or "none but the owner's"
        more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
        raise FileNotFoundError(f"the run has no part {quoted(part)}; its parts: {shown}{more}")
    return run.of(part)
