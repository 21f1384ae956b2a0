"""Texts and files of any kind: what a call takes of one."""

from __future__ import annotations

import os

from keisei.errors import MediaError, quoted
from keisei.media.formats import suffix_of
from keisei.media.values import Content, Keep, Taken
from keisei.redaction import clean

MOST_CHARACTERS = 1 << 24


def take_text(text: object, *, redact: bool) -> Taken:
    """Take a text.

    Args:
        text: the text.
        redact: whether secrets in it are hidden.

    Raises:
        MediaError: it is none, or too long.
    """
    if not isinstance(text, str):
        raise MediaError(f"text: must be a string, not {type(text).__name__}")
    if len(text) > MOST_CHARACTERS:
        raise MediaError(f"text: is longer than {MOST_CHARACTERS:,} characters: use log_file()")
    plain = str.__str__(text)

    def encode(keep: Keep) -> Content:
        shown = clean(plain) if redact else plain
        return Content("text", ".txt", shown.encode("utf-8", "replace"))

    return Taken(len(plain), encode)


def take_file(file: object, name: str) -> Taken:
    """Take a file: its path, or its bytes.

    Args:
        file: the path, or the bytes.
        name: the name that it is logged by, which may say the suffix of bytes.

    Raises:
        MediaError: it is neither.
    """
    if isinstance(file, (bytes, bytearray, memoryview)):
        content = Content("file", suffix_of(name), bytes(file))
        return Taken(len(content.data or b""), lambda keep: content)
    path = checked_path("file", file)
    about = {"file_name": clean(os.path.basename(path))}
    content = Content("file", suffix_of(path), path=path, about=about)
    return Taken(0, lambda keep: content)


def checked_path(argument: str, value: object) -> str:
    """Return a path as a text.

    Raises:
        MediaError: it is none.
    """
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise MediaError(f"{argument}: must be a path or bytes, not {type(value).__name__}")
    if not path or "\0" in path:
        raise MediaError(f"{argument}: {quoted(path, 300)} is no path")
    return str.__str__(path)
