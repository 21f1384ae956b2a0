"""Read what an attempt was started from; the files may be anybody's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from keisei._io.directories import OpenDirectory
from keisei.run.layout import ORIGINS_FILE

_RECORD = re.compile(r"provenance\.([1-9]\d{0,8})\.json")


def read_snapshot(directory: str, attempt: int | None = None) -> Mapping[str, Any] | None:
    """Return what an attempt was started from; ``None`` where that is not recorded, or damaged.

    Args:
        directory: the run's directory.
        attempt: which attempt; without it, the last one that has a record.

    Raises:
        OSError: the directory or the file cannot be read.
    """
    with OpenDirectory(directory) as opened:
        numbers = [int(found[1]) for name in opened.names() if (found := _RECORD.fullmatch(name))]
        if attempt is None:
            attempt = max(numbers, default=None)
        if attempt not in numbers:
            return None
        return _mapping(opened.read(f"provenance.{attempt}.json"))


def read_origins(directory: str) -> Mapping[str, Any] | None:
    """Return where the values of a run's config came from; ``None`` as `read_snapshot`.

    Args:
        directory: the run's directory.

    Raises:
        OSError: the directory or the file cannot be read.
    """
    with OpenDirectory(directory) as opened:
        return part(_mapping(opened.read(ORIGINS_FILE)), "values") or None


def part(data: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """Return a mapping in a mapping; an empty one where it is none."""
    found = (data or {}).get(name)
    return found if isinstance(found, Mapping) else {}


def texts(data: Mapping[str, Any], name: str) -> list[str]:
    """Return the texts of a list in a mapping."""
    found = data.get(name)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def mappings(data: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the mappings of a list in a mapping."""
    found = data.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def origin_text(about: Mapping[str, Any]) -> str:
    """Return in words where a value of a config came from.

    Args:
        about: what is recorded of it: its source, and which file, line or name.
    """
    source, name = str(about.get("source")), about.get("name")
    where = f"{about['file']}:{about.get('line') or '?'}" if about.get("file") else ""
    if source == "file":
        return where
    named = f"{source} {name}" if name else source
    return f"{named} in {where}" if where else named


def _mapping(text: bytes | None) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text or b"null")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
