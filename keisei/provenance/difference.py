"""Hide secrets in a diff: in its lines as they stand in the files, on either side."""

from __future__ import annotations

import re
from collections.abc import Iterator

from keisei._io.switching import yield_gil
from keisei.redaction import redact_text

_HUNK = re.compile(r"@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@")


def scrubbed_diff(diff: bytes, secrets: tuple[str, ...], *, is_cut: bool = False) -> bytes:
    """Return a diff with the secrets in it hidden.

    The mark before each line is taken away meanwhile: `-password=` would read as an option, and
    the lines of a private key as none.

    Args:
        diff: what `git diff` has written.
        secrets: values to hide wherever they stand.
        is_cut: whether its end is missing; the last line is then left out, too.
    """
    text = diff.decode("utf-8", "surrogateescape")
    if is_cut:
        text = text[: text.rfind("\n") + 1]
    scrubbed = "".join(_scrubbed(part, secrets) for part in _parts(text))
    if is_cut:
        scrubbed += (
            "# The rest of the diff is left out: it is larger than provenance.largest_total\n"
        )
    return scrubbed.encode("utf-8", "surrogateescape")


def _parts(text: str) -> Iterator[list[str]]:
    """Yield the lines of each head and each hunk."""
    part: list[str] = []
    for line in _lines(text):
        if line.startswith(("diff --git ", "@@ ")) and part:
            yield part
            part = []
        part.append(line)
    if part:
        yield part


def _lines(text: str) -> list[str]:
    """Return the lines of a text; no other character than a newline ends one."""
    *ended, last = text.split("\n")
    return [f"{line}\n" for line in ended] + ([last] if last else [])


def _scrubbed(lines: list[str], secrets: tuple[str, ...]) -> str:
    yield_gil()
    if not _HUNK.match(lines[0]):
        return redact_text("".join(lines), secrets)
    # What stands behind the numbers is a line of the file, too.
    numbers, behind = lines[0].split("@@")[1], "@@".join(lines[0].split("@@")[2:])
    head = f"@@{numbers}@@{redact_text(behind, secrets)}"
    shown = [(line[:1], line[1:]) for line in lines[1:]]
    whole = _sided(shown, "-+ \\", secrets)
    if whole is None:  # a block of lines was hidden
        return f"{head}{redact_text(''.join(body for _, body in shown), secrets)}"
    for side in ("- ", "+ "):  # each by itself: what belongs together may stand apart in the diff
        again = _sided(whole, side, secrets)
        if again is None:
            return f"{head}{redact_text(''.join(body for _, body in whole), secrets)}"
        whole = again
    return head + "".join(mark + body for mark, body in whole)


def _sided(
    lines: list[tuple[str, str]], marks: str, secrets: tuple[str, ...]
) -> list[tuple[str, str]] | None:
    """Return lines with secrets hidden in those of some marks; ``None`` where that joins lines."""
    chosen = [body for mark, body in lines if mark in marks]
    hidden = _lines(redact_text("".join(chosen), secrets))
    if len(hidden) != len(chosen):
        return None
    left = iter(hidden)
    return [(mark, next(left) if mark in marks else body) for mark, body in lines]
