"""Moves what a resumed run has left behind out of `evaluation.log`.

Each line says how far the journal was when it was logged, and so the resumes that the journal
holds decide about lines as they do about rows. Whatever the process is killed in, no line is lost:
they are added to the other file before they leave this one.
"""

from __future__ import annotations

import json
import os

from keisei._io.files import OpenDirectory, append_whole, write_atomic
from keisei.journal.reader import RunJournal
from keisei.journal.superseding import Cuts, position_in
from keisei.run.layout import EVALUATION_LOG, SUPERSEDED_EVALUATIONS, log_file


def divided(lines: bytes, cuts: Cuts) -> tuple[bytes, bytes]:
    """Return the lines that an uninterrupted run would have, and the others.

    Args:
        lines: whole lines of an evaluation log. One that a kill has torn is none that holds; one
            without a position, of an earlier version of keisei, holds.
        cuts: what the run's resumes have left behind.
    """
    kept: list[bytes] = []
    left: list[bytes] = []
    for line in lines.splitlines(keepends=True):
        try:
            said = json.loads(line)
            position = position_in(said)
            holds = position is None or position not in cuts
        except (ValueError, AttributeError, RecursionError):
            holds = False
        (kept if holds else left).append(line)
    return b"".join(kept), b"".join(left)


def cut(directory: OpenDirectory, part: str | None = None) -> None:
    """Move the lines that are superseded to `evaluation.superseded.log`; blocks.

    Args:
        directory: the run's directory; its journals say what is superseded.
        part: the part of the run whose log it is; ``None`` for the owner's own.

    Raises:
        OSError: a file cannot be read or written; it may be tried again.
    """
    log, superseded = log_file(EVALUATION_LOG, part), log_file(SUPERSEDED_EVALUATIONS, part)
    lines = directory.read(log)
    if not lines:
        return
    kept, left = divided(lines, RunJournal(directory.path, part).cuts())
    if not left:
        return
    if not _ends_with(directory, superseded, left):  # where a kill came between the two
        append_whole(directory, superseded, left)
    write_atomic(directory, log, kept)


def _ends_with(directory: OpenDirectory, name: str, data: bytes) -> bool:
    try:
        fd = directory.open(name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    with open(fd, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(data)))
        return file.read() == data
