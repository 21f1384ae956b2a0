"""A run's tags and its note, in `labels.json` of its directory: they outlive any registry."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from keisei._io import files, locks
from keisei.errors import quoted
from keisei.redaction import clean
from keisei.run.layout import LABELS_FILE, TRAINING_LOG

MOST_TAGS = 100
LONGEST_TAG = 64  # characters
LONGEST_NOTE = 10_000
_LARGEST = 1 << 20  # bytes of a file that is still read


@dataclass(frozen=True)
class Labels:
    """What people have said of a run.

    Attributes:
        tags: its tags, sorted, each once.
        note: its note; ``None`` where it has none.
    """

    tags: tuple[str, ...] = ()
    note: str | None = None


def read_labels(directory: files.OpenDirectory) -> Labels:
    """Return a run's labels; none where there is no such file, or where it is none of keisei's.

    Args:
        directory: the run's directory.

    Raises:
        OSError: the file cannot be read.
    """
    text = _read(directory)
    return Labels() if text is None else _parsed(text) or Labels()


def tagged(labels: Labels, tags: Iterable[str]) -> Labels:
    """Return the labels with more tags.

    Raises:
        ValueError: a tag is none, or there would be too many.
    """
    more = tuple(sorted({*labels.tags, *map(_checked_tag, tags)}))
    if len(more) > MOST_TAGS:
        raise ValueError(f"a run has at most {MOST_TAGS} tags, and this one would have {len(more)}")
    return replace(labels, tags=more)


def untagged(labels: Labels, tags: Iterable[str]) -> Labels:
    """Return the labels without some tags; those that it does not have are no error."""
    return replace(labels, tags=tuple(sorted({*labels.tags} - {*tags})))


def noted(labels: Labels, note: str | None) -> Labels:
    """Return the labels with another note, secrets hidden; ``None`` and an empty one remove it.

    Raises:
        ValueError: the note is too long.
    """
    text = _as_utf8(clean(note or "").strip())
    if len(text) > LONGEST_NOTE:
        raise ValueError(f"a note has at most {LONGEST_NOTE:,} characters, not {len(text):,}")
    return replace(labels, note=text or None)


def change_labels(path: str, change: Callable[[Labels], Labels]) -> Labels:
    """Change a run's labels, whole or not at all; one process at a time changes them.

    Args:
        path: the run's directory, absolute.
        change: returns the new labels for those that are there.

    Returns:
        The new labels.

    Raises:
        OSError: they cannot be read or written; the old ones stand.
        ValueError: the new ones are not allowed, or what stands in the file is none of keisei's.
    """
    with files.OpenDirectory(path) as directory, locks.locked(directory, TRAINING_LOG):
        text = _read(directory)
        old = Labels() if text is None else _parsed(text)
        if old is None:
            where = quoted(os.path.join(path, LABELS_FILE), 300)
            raise ValueError(f"{where} is damaged: repair or remove it, and try again")
        new = change(old)
        if new != old:
            data = {"tags": list(new.tags), "note": new.note}
            files.write_atomic(directory, LABELS_FILE, _json(data))
        return new


def _read(directory: files.OpenDirectory) -> bytes | None:
    try:
        fd = directory.open(LABELS_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        return file.read(_LARGEST + 1)


def _parsed(text: bytes) -> Labels | None:
    try:
        data = json.loads(text)
        tags, note = data.get("tags", []), data.get("note")
        if not isinstance(note, str | None) or not isinstance(tags, list):
            return None
        return noted(tagged(Labels(), tags), note)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _checked_tag(tag: object) -> str:
    if not isinstance(tag, str) or not 0 < len(tag) <= LONGEST_TAG or not tag.isprintable():
        raise ValueError(
            f"{quoted(tag)} is no tag: it has 1 to {LONGEST_TAG} characters that can be printed"
        )
    if tag != tag.strip() or any(char in tag for char in ",\"'()"):
        raise ValueError(f"{quoted(tag)} is no tag: it holds no quotes, commas or parentheses")
    return _as_utf8(clean(tag))


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _json(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, indent=2).encode() + b"\n"
