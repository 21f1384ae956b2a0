"""What a call has taken of a thing to keep, and what becomes of it when it is encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["image", "figure", "video", "audio", "histogram", "table", "text", "file"]


@dataclass(frozen=True)
class Content:
    """A thing as it is written: bytes, or a file to copy.

    Attributes:
        kind: what it is.
        suffix: what its file's name ends with, as ``.png``; may be empty.
        data: its bytes; ``None`` where it is a file.
        path: the file to copy; ``None`` where there are bytes.
        about: what else is known of it as JSON has it, such as ``width`` and ``height``.
    """

    kind: Kind
    suffix: str
    data: bytes | None = None
    path: str | None = None
    about: dict[str, Any] = field(default_factory=dict)


class Kept(NamedTuple):
    """A file that is kept by its content.

    Attributes:
        file: its path below the run's `media/`.
        size: how many bytes it has.
        digest: the SHA-256 of them, in hexadecimal.
    """

    file: str
    size: int
    digest: str


Keep = Callable[[Content], Kept]


@dataclass(frozen=True)
class Taken:
    """What a call has taken: a copy of its own, to be encoded on another thread.

    Attributes:
        size: how many bytes of memory it holds.
        encode: returns it as it is written, blocking; keeps first what it refers to.
    """

    size: int
    encode: Callable[[Keep], Content]
