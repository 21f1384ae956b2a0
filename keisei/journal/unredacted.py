"""Events whose secrets are still to be hidden: the writer's thread does it, in order."""

from __future__ import annotations

import json
import os
from json import scanner

from keisei._io.switching import quick_switches
from keisei.journal.format import LARGE, Record, pack_event
from keisei.redaction import redact, secret_values

_QUICK = LARGE // 8  # from this size on, a switch of threads is asked for


class UnredactedEvent:
    """An event as its caller gave it.

    Args:
        text: its JSON.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def packed(self) -> Record:
        """Return the event as it is stored, its secrets hidden; blocks."""
        text, known = self._text, secret_values(os.environ)
        decoder, encoder = json.JSONDecoder(), json.JSONEncoder(separators=(",", ":"))
        try:
            if len(text) < _QUICK:
                return pack_event(encoder.encode(redact(decoder.decode(text), known)))
            # In Python, which gives up the GIL: what is in C holds it for 10 ms a megabyte.
            decoder.scan_once = scanner.py_make_scanner(decoder)  # type: ignore[attr-defined]
            with quick_switches():
                return pack_event("".join(encoder.iterencode(redact(decoder.decode(text), known))))
        except Exception as exc:  # noqa: BLE001 - no fault of a rule may hold up the rows
            moment, _, rest = text[1:].partition(",")
            problem = f"its secrets could not be hidden: {type(exc).__name__}"
            name = decoder.raw_decode(rest)[0]
            return pack_event(encoder.encode([float(moment), redact(name), problem]))
