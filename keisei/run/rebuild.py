"""Rebuild the session file from the training log, where it is lost. Nothing is read or written."""

from __future__ import annotations

import re

from keisei.run.failure import Failure
from keisei.run.session_file import Owner, SessionRecord
from keisei.run.status import FINAL

UNKNOWN = Owner(host="unknown", pid=0, process_start="unknown")
"""An owner of which nothing is known, unless it holds the lock of the run's directory."""

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
# Patterns are texts, which `re` compiles when a record has to be rebuilt.
_START = (
    rf"\[({_TIME})\] session started: run {_NAME}, id ([0-9A-HJKMNP-TV-Z]{{26}}), "
    r"attempt ([1-9][0-9]{0,8})"
)
_END = (
    rf"\[({_TIME})\] session ended: run {_NAME}, ({'|'.join(FINAL)})"
    rf"(?: after ([0-9]{{1,12}}\.[0-9]{{3}}) s(?:: ([^\s:(]{{1,100}})[: ]*(.*))?| at ({_TIME}): .*)"
)
_OWNER = rb'"owner":\s*(\{[^{}]{1,2000}\})'
_STATUS = rb'"status":\s*"(\w+)"'


def rebuilt_record(log_text: str, run_name: str, paths: dict[str, str]) -> SessionRecord | None:
    """Return what the session file held, as far as the training log says it.

    The last start line gives the id, the attempt and when it started; an end line after it how
    that attempt ended and when. Without one it is `failed`, and when it ended stays unknown. What
    the trackers knew is lost, and the owner is `UNKNOWN`.

    Args:
        log_text: the training log, or only the lines of it that keisei wrote.
        run_name: the run's name.
        paths: the run's paths, by name.

    Returns:
        The record; ``None`` where the log has no start line.
    """
    record: SessionRecord | None = None
    for line in log_text.split("\n"):
        line = line.rstrip("\r")
        if started := re.fullmatch(_START, line, re.ASCII):
            started_at, session_id, number = started.groups()
            attempt = int(number)
            if record is not None and record.session_id == session_id:
                attempt = max(attempt, record.attempt)  # its last digit may have been torn off
            record = SessionRecord(
                session_id=session_id,
                run_name=run_name,
                attempt=attempt,
                status="failed",
                owner=UNKNOWN,
                started_at=started_at,
                paths=paths,
            )
        elif record is not None and (ended := re.fullmatch(_END, line, re.ASCII)):
            written_at, status, seconds, error, message, ended_at = ended.groups()
            changes = {
                "status": status,
                "ended_at": ended_at or written_at,
                "duration_s": float(seconds) if seconds else None,
                "failure": Failure(type=error, message=message) if error else None,
            }
            record = record.model_copy(update=changes)
    return record


def has_start(log_text: str) -> bool:
    """Return whether a training log has a start line of keisei's."""
    return any(re.fullmatch(_START, line, re.ASCII) for line in log_text.splitlines())


def salvaged_owner(record_text: bytes) -> Owner | None:
    """Return the owner from a damaged session file.

    Args:
        record_text: the bytes of the file.

    Returns:
        The owner; ``None`` where it cannot be found, or the file says that the run has ended.
    """
    found = re.search(_OWNER, record_text)
    status = re.search(_STATUS, record_text)
    if found is None or (status is not None and status[1].decode() in FINAL):
        return None
    try:
        return Owner.model_validate_json(found[1])
    except ValueError:
        return None
