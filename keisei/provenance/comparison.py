"""What differs between what two attempts were started from, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keisei.errors import quoted

_SHOWN = 10  # packages
WARN = "(warn)"
_OF_MACHINES = {"host": "", "system": "", "python": WARN, "driver": WARN, "container": ""}


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two snapshots, a text for each subject, with its verdict.

    Other code, packages, Python or driver is worth a warning, another machine is free.

    Args:
        earlier: the earlier attempt's, which may be damaged.
        now: this attempt's.
    """
    return [
        text
        for text in (_code(earlier, now), _packages(earlier, now), *_machine(earlier, now))
        if text
    ]


def _code(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = _part(earlier, "code"), _part(now, "code")
    if before.get("problem") or after.get("problem"):
        return ""  # what is not known is no difference
    was, is_now = before.get("commit"), after.get("commit")
    if was != is_now:
        return f"code: commit {_short(was)}, now {_short(is_now)} {WARN}"
    keys = ("is_dirty", "changed", "untracked", "digest")
    if any(before.get(key) != after.get(key) for key in keys):
        return f"code: other changes to commit {_short(was)} {WARN}"
    return ""


def _packages(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = _part(earlier, "packages"), _part(now, "packages")
    if not before or not after:
        return ""
    names = [n for n in sorted({*before, *after}) if before.get(n) != after.get(n)]
    texts = [
        f"{name} {_version(before.get(name))}, now {_version(after.get(name))}"
        for name in names[:_SHOWN]
    ]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return f"packages: {'; '.join([*texts, *more])} {WARN}" if names else ""


def _machine(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    before, after = _part(earlier, "machine"), _part(now, "machine")
    for key, verdict in _OF_MACHINES.items():
        if before and before.get(key) != after.get(key):
            text = f"{key}: {_text(before.get(key))}, now {_text(after.get(key))}"
            yield f"{text} {verdict or '(free)'}"


def _part(snapshot: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = snapshot.get(name)
    return part if isinstance(part, Mapping) else {}


def _version(value: Any) -> str:
    found = value.get("version") if isinstance(value, Mapping) else value
    text = "absent" if found is None else _text(found)
    commit = value.get("commit") if isinstance(value, Mapping) else None
    return f"{text} ({_short(commit)})" if commit else text


def _short(commit: Any) -> str:
    return "none" if commit is None else _text(commit)[:12]


def _text(value: Any) -> str:
    return quoted(value, 80)[1:-1] if isinstance(value, str) else quoted(value, 80)
