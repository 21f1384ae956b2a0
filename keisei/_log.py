"""The standard library's logger `keisei`, with secrets hidden in all that is logged to it.

Modules take `logger` from here, and not from `logging`.
"""

from __future__ import annotations

import logging

from keisei.redaction import clean

logger = logging.getLogger("keisei")


class _Redactor(logging.Filter):
    """Replaces a message's parts, and a traceback, by their final text with secrets hidden."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a message that does not fit its arguments
            message = str(record.msg)
        record.msg, record.args = clean(message), ()
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None  # the error itself would be formatted again by some handlers
        if record.exc_text:
            record.exc_text = clean(record.exc_text)
        if record.stack_info:
            record.stack_info = clean(record.stack_info)
        return True


logger.addFilter(_Redactor())
