"""Escaping of values for a line of text."""

from __future__ import annotations


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
