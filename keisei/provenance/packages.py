"""Which packages the program could import: names and versions, and where from if not an index."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from importlib import metadata
from typing import Any

from keisei._io.forks import after_in_child
from keisei._io.switching import yield_gil
from keisei.redaction import clean

_MOST = 5_000
_lock = threading.Lock()
_known: tuple[tuple[object, ...], dict[str, Any]] | None = None


def packages() -> dict[str, Any]:
    """Return the installed packages: by name the version, or a mapping that says more; blocks.

    They are read once, and again where the import path or a directory on it has changed.
    """
    global _known
    mark = tuple((path, _changed(path)) for path in sys.path)
    with _lock:
        if _known is None or _known[0] != mark:
            _known = mark, _read()
        return _known[1]


def _changed(path: str) -> int:
    try:
        return os.stat(path or os.curdir).st_mtime_ns
    except OSError:
        return 0


def _read() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in metadata.distributions():
        yield_gil()
        try:
            about = one.metadata  # each access parses it
            name, version = about["Name"], about["Version"]
        except Exception:  # noqa: BLE001 - a damaged installation
            continue
        if not name or name in found:
            continue
        found[name] = str(version)
        with suppress(Exception):  # as above
            if (text := one.read_text("direct_url.json")) is not None:
                found[name] = {"version": str(version), **_source(json.loads(text))}
        if len(found) >= _MOST:
            break
    # One by one: `google-auth` is a name, and its version no secret.
    ordered = sorted(found.items(), key=lambda item: item[0].lower())
    return {clean(name): clean(about) for name, about in ordered}


def _source(said: dict[str, Any]) -> dict[str, Any]:
    """Return where a package comes from that no index has given."""
    vcs, directory = said.get("vcs_info") or {}, said.get("dir_info") or {}
    source = {
        "url": said.get("url"),
        "commit": vcs.get("commit_id"),
        "editable": directory.get("editable") or None,
    }
    return {key: value for key, value in source.items() if value is not None}


def _begin_anew() -> None:
    global _lock
    _lock = threading.Lock()


after_in_child(_begin_anew)
