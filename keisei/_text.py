"""Values as lines of text: escaped, and as JSON that reads line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any


def one_line(value: object) -> str:
    """Return a value as part of a log line: control characters and newlines are escaped."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - the user's own object
        text = f"<{type(value).__name__} object>"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_utf8(text: str) -> str:
    r"""Return a text that UTF-8 can hold: bytes of a path that are no UTF-8 are escaped (`\xff`).

    Raises:
        UnicodeEncodeError: it has other lone surrogates, which stand for no bytes.
    """
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def as_lines(data: Mapping[str, Any]) -> str:
    """Return plain data as JSON text, with a line for each entry, and for those one level below.

    Args:
        data: what JSON can hold.
    """
    dumps = partial(json.dumps, ensure_ascii=False)
    parts = []
    for key, value in data.items():
        text = dumps(value)
        if isinstance(value, Mapping) and value:
            inner = (f"  {dumps(name)}: {dumps(one)}" for name, one in value.items())
            text = "{\n" + ",\n".join(inner) + "\n }"
        parts.append(f" {dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
