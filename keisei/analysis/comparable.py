"""Which runs are comparable: those that differ in nothing that changes what they come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from keisei.errors import quoted

# What a run is called and seeded with, where it lives, and what follows it.
IGNORED = (
    "seed",
    "*.seed",
    "run_name",
    "*.run_name",
    *(
        f"{section}.*"
        for section in (
            "budget",
            "checkpoints",
            "cost",
            "distributed",
            "journal",
            "logging",
            "media",
            "monitoring",
            "provenance",
            "registry",
            "signals",
            "tracking",
            "wandb",
        )
    ),
)
_MISSING = object()


def leaves(config: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield the path and the value of each leaf of a config; a list is one value."""
    for key, value in config.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def is_ignored(path: str, ignore: Iterable[str] = ()) -> bool:
    """Return whether a config value does not count, by its path."""
    return any(fnmatchcase(path, pattern) for pattern in (*IGNORED, *ignore))


def differences(configs: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    """Return the config values in which runs differ, by their paths, each with the value in each.

    Args:
        configs: the configs; what one of them does not have is ``None`` there.
    """
    flat = [dict(leaves(config)) for config in configs]
    paths = dict.fromkeys(path for one in flat for path in one)
    found = {path: [one.get(path, _MISSING) for one in flat] for path in paths}
    return {
        path: [None if value is _MISSING else value for value in values]
        for path, values in found.items()
        if any(value != values[0] or type(value) is not type(values[0]) for value in values)
    }


def incomparable(
    config: Mapping[str, object],
    other: Mapping[str, object],
    ignore: Iterable[str] = (),
    machines: tuple[object, object] = (None, None),
) -> list[str]:
    """Return why two runs are not comparable, in words; nothing where they are.

    Args:
        config: the config of the new run.
        other: that of the earlier one.
        ignore: paths, or patterns, of config values that do not count.
        machines: what kind of machine each ran on, where that is known: another kind makes other
            times, and other rounding.
    """
    own = tuple(ignore)
    reasons = [
        f"{path} is {_shown(new)}, and was {_shown(old)}"
        for path, (new, old) in sorted(differences([config, other]).items())
        if not is_ignored(path, own)
    ]
    new, old = machines
    if new is not None and old is not None and new != old:
        reasons.append(f"the machine is {_shown(new)}, and was {_shown(old)}")
    return reasons


def _shown(value: object) -> str:
    shown = quoted(value, 80)
    return shown if isinstance(value, str) else shown.strip("'\"")
