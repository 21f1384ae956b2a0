"""Reads from the first bytes of an image's file which format it has, and how large it is."""

from __future__ import annotations

import os.path
import re
import struct
from typing import NamedTuple

from keisei.errors import MediaError, quoted

HEAD = 1 << 18  # bytes; a JPEG has its size behind what its camera says
MOST_PIXELS = 100_000_000

_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")
_SVG = re.compile(rb"<(?:[a-z]+:)?svg[\s>/]", re.I)
_NO_SIZE = frozenset([0xC4, 0xC8, 0xCC])  # JPEG's segments that look as if they had one


class Header(NamedTuple):
    """What an image's file begins with.

    Attributes:
        suffix: what the names of such files end with.
        width: in pixels.
        height: in pixels.
    """

    suffix: str
    width: int
    height: int


def image_header(head: bytes) -> Header | None:
    """Return format and size of an image; ``None`` where it is none that every browser shows.

    Args:
        head: the first bytes of the file, `HEAD` of them where there are so many.
    """
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return Header(".png", *struct.unpack_from(">II", head, 16))
        if head.startswith((b"GIF87a", b"GIF89a")):
            return Header(".gif", *struct.unpack_from("<HH", head, 6))
        if head.startswith(b"\xff\xd8\xff"):
            return _jpeg(head)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp(head)
        if head.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", head, 18)
            return Header(".bmp", abs(width), abs(height))
    except struct.error:
        return None
    return None


def check_size(width: int, height: int) -> None:
    """Check that an image is none that would fill a reader's memory.

    Raises:
        MediaError: it has too many pixels, or none.
    """
    if not 0 < width * height <= MOST_PIXELS:
        raise MediaError(
            f"image: {width:,} x {height:,} pixels are none, or more than {MOST_PIXELS:,}: scale "
            "it down, or keep it with log_file()"
        )


def is_svg(head: bytes) -> bool:
    """Return whether a file looks like an SVG, which can hold a script."""
    return bool(_SVG.search(head[:4096]))


def suffix_of(name: str) -> str:
    """Return what a file's name ends with, where that is a plain one; else nothing."""
    suffix = os.path.splitext(os.path.basename(name))[1].lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""


def check_suffix(argument: str, path: str, known: frozenset[str]) -> str:
    """Return the suffix of a path that names a file of a known kind.

    Raises:
        MediaError: it has another one.
    """
    suffix = suffix_of(path)
    if suffix not in known:
        raise MediaError(
            f"{argument}: {quoted(path, 300)} ends with none of {', '.join(sorted(known))}: keep "
            "it with log_file()"
        )
    return suffix


def _jpeg(head: bytes) -> Header | None:
    at = 2
    while at + 9 < len(head):
        if head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return Header(".jpg", width, height)
        else:
            at += 2 + struct.unpack_from(">H", head, at + 2)[0]
    return None


def _webp(head: bytes) -> Header | None:
    kind = head[12:16]
    if kind == b"VP8X":
        width, height = head[24:27], head[27:30]
        return Header(
            ".webp", 1 + int.from_bytes(width, "little"), 1 + int.from_bytes(height, "little")
        )
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return Header(".webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return Header(".webp", width & 0x3FFF, height & 0x3FFF)
    return None
