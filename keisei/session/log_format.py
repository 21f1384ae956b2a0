"""How the lines of `training.log` and `evaluation.log` read: escaped, secrets hidden, cut."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import datetime
from traceback import TracebackException
from typing import NamedTuple

from keisei._text import one_line
from keisei.journal.records import Position
from keisei.redaction import redact, redact_text
from keisei.run.layout import TRAINING_LOG
from keisei.session.evaluation import read_later

LONGEST = 16_384  # characters of a line; what is hidden may begin before the cut and end after it
CUT = LONGEST + 4096

# The file, the time, and a line's text with what follows it, or a record's `When` with its values.
Item = tuple[str, float, object, object]
# A traceback, its frames already let go, or a text.
Tail = list[TracebackException | str]


class When(NamedTuple):
    """When an evaluation was logged.

    Attributes:
        step: its training step, if it has one; perhaps still unread.
        position: how far the journal was.
    """

    step: object
    position: Position | None


class Raw(NamedTuple):
    """A text, or plain data, that is written as it is, secrets included."""

    data: object


def formatted(item: Item, known: Iterable[str]) -> bytes:
    """Return the bytes of a line, or of an evaluation's record, secrets hidden; never raises.

    Args:
        item: what was queued.
        known: secrets that are known.
    """
    name, moment, first, rest = item
    try:
        if name == TRAINING_LOG:
            text, hide = (first.data, None) if isinstance(first, Raw) else (first, known)
            return _line(moment, str(text), rest, hide)  # type: ignore[arg-type]
        values = read_later(rest.data) if isinstance(rest, Raw) else redact(read_later(rest), known)
        when: When = first  # type: ignore[assignment]
        line = {"time": _time(moment), "step": read_later(when.step), "values": values}
        if when.position is not None:
            line |= when.position._asdict()
        return json.dumps(line).encode() + b"\n"
    except Exception as exc:  # noqa: BLE001 - one that cannot be said must not hold up the others
        return _line(time.time(), f"a line could not be written: {type(exc).__name__}", [], known)


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="milliseconds")


def _line(moment: float, text: str, tail: Tail, known: Iterable[str] | None) -> bytes:
    """Return a line, and its continuation lines, which are indented."""
    if text.startswith("session "):
        text = f"| {text}"  # keisei's own lines begin so, and are believed
    lines = [one_line(f"[{_time(moment)}] {_clean(text, known)}")]
    for part in tail:
        more = part if isinstance(part, str) else "".join(part.format())
        lines += [f"    {one_line(line)}" for line in _clean(more, known).rstrip("\n").split("\n")]
    return "".join(f"{line}\n" for line in lines).encode()


def _clean(text: str, known: Iterable[str] | None) -> str:
    hidden = text[:CUT] if known is None else redact_text(text[:CUT], known)
    return hidden if len(hidden) <= LONGEST else f"{hidden[:LONGEST]}... (cut)"
