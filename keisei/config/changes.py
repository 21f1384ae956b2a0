"""What a resumed run's config changes, and whether its fields let it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic_core

from keisei.config.layers import Path
from keisei.config.leaves import ABSENT, Verdict, leaves, verdict_at
from keisei.config.origins import dotted
from keisei.config.schema import AppConfig
from keisei.errors import ConfigChangedError, quoted

_SHOWN = 20  # changes in one message


@dataclass(frozen=True)
class Change:
    """One value that is another one than at the earlier attempt.

    Attributes:
        key: where it stands, dotted.
        earlier: what it was, as text of JSON, secrets hidden; `absent` where it was not there.
        now: what it is.
        verdict: `free`, `warn` or `refuse`, as its field says.
    """

    key: str
    earlier: str
    now: str
    verdict: Verdict


def changes(
    earlier: Mapping[str, Any],
    now: Mapping[str, Any],
    config: AppConfig,
    accepted: Collection[str] = (),
) -> list[Change]:
    """Return what differs between the configs of two attempts.

    A field that an older attempt's model did not have, and that has its default, is no change.

    Args:
        earlier: the earlier effective config, as plain data.
        now: the same of this attempt.
        config: this attempt's config.
        accepted: keys whose changes, and those below them, are free.
    """
    found = []
    seen: set[Path] = set()
    for leaf in leaves(config):
        seen.update(leaf.path[:length] for length in range(1, len(leaf.path) + 1))
        before, after = _at(earlier, leaf.path), _at(now, leaf.path)
        if before is ABSENT and _plain(leaf.value) == _plain(leaf.default):
            continue
        if isinstance(before, Mapping) and after == {}:
            continue  # what was in it has gone, key by key
        if before != after:
            found.append((leaf.path, before, after, leaf.verdict))
    for path, before in _gone(earlier, now, seen):
        found.append((path, before, ABSENT, verdict_at(type(config), path)))
    return [
        Change(dotted(path), _text(before), _text(after), _verdict(path, verdict, accepted))
        for path, before, after, verdict in found
    ]


def check_changes(run_name: str, found: Sequence[Change]) -> None:
    """Check that no field refuses a change.

    Args:
        run_name: the run's name.
        found: what has changed.

    Raises:
        ConfigChangedError: one does; the message names the values, and every way out.
    """
    refused = [change for change in found if change.verdict == "refuse"]
    if not refused:
        return
    lines = [
        f"  {quoted(one.key, 200)[1:-1]}: {_cut(one.earlier)} at the earlier attempt, "
        f"{_cut(one.now)} now"
        for one in refused[:_SHOWN]
    ]
    if len(refused) > _SHOWN:
        lines.append(f"  and {len(refused) - _SHOWN} more")
    raise ConfigChangedError(
        f"run {quoted(run_name)} cannot be resumed with another value of what must stay:\n"
        + "\n".join(lines)
        + "\nPut the earlier value back; or use another run name, or logging.if_exists 'number', "
        "for a run of its own; or name the key in provenance.accept_changes, if it is meant.",
        changes=tuple((one.key, one.earlier, one.now) for one in refused),
    )


def said(found: Sequence[Change]) -> str:
    """Return changes as one line."""
    texts = [
        f"{quoted(one.key, 200)[1:-1]} from {_cut(one.earlier)} to {_cut(one.now)}"
        for one in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        texts.append(f"and {len(found) - _SHOWN} more")
    return ", ".join(texts)


def _verdict(path: Path, verdict: Verdict, accepted: Collection[str]) -> Verdict:
    prefixes = {dotted(path[:length]) for length in range(1, len(path) + 1)}
    return "free" if prefixes & set(accepted) else verdict


def _gone(earlier: Any, now: Any, seen: set[Path], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield what stood in the earlier config under keys that there are no more."""
    if not isinstance(earlier, Mapping) or not isinstance(now, Mapping):
        return
    for key, value in earlier.items():
        below = (*path, key)
        if key not in now:
            if below not in seen:
                yield below, value
        else:
            yield from _gone(value, now[key], seen, below)


def _at(data: Any, path: Path) -> Any:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return ABSENT
        data = data[part]
    return data


def _plain(value: Any) -> Any:
    try:
        return pydantic_core.to_jsonable_python(value, inf_nan_mode="strings")
    except ValueError:
        return value


def _text(value: Any) -> str:
    return "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return quoted(text, 120)[1:-1]
