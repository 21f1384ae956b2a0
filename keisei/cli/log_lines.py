"""Lines of a run's log, as a terminal shows them."""

from __future__ import annotations

import re
from datetime import datetime

from rich.text import Text

LONGEST = 1000  # characters of a line in a terminal
_LINE = re.compile(r"\[(\d{4}-\d\d-\d\dT[^\]\s]+)\] (?:([A-Z]+) \S+: )?")
_LEVELS = {
    "DEBUG": "dim",
    "INFO": "",
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold red",
}


def for_terminal(line: str) -> Text:
    """Return a line with its level's colour, its time in local time, and an end if it is long.

    Args:
        line: the line, escaped.
    """
    head = _LINE.match(line)
    if head is None:
        text = Text(line)
    else:
        style = "cyan" if head[2] is None else _LEVELS.get(head[2], "")
        rest = line[head.end(1) + 2 :]
        text = Text.assemble((_local(head[1]), "dim"), " ", (rest, style))
    if (more := len(text) - LONGEST) > 0:
        text = text[:LONGEST]
        text.append(f"  +{more:,} characters", "dim")
    return text


def _local(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return moment
