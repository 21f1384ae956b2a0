"""Decide which fields of a config are keisei's sections, and which are the user's own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from keisei.errors import quoted

KEISEI = "keisei"  # the key whose value holds keisei's sections, and nothing else
OWN = "own"  # where the user's fields are kept whose names are keisei's

Path = tuple[str, ...]
Sections = Mapping[str, Collection[str]]  # the names of keisei's sections, each with its fields


def placed(data: Mapping[str, Any], sections: Sections) -> Iterator[tuple[Path, Path, Any]]:
    """Yield the parts of a config: where each goes, where it stood, and its value.

    With a key `keisei`, keisei's sections are those that it holds. Without it, a field is keisei's
    section where it has its name, is a mapping, and all keys of it are fields of that section.
    All else is the user's own, and stays where it is; but what has the name of a section goes to
    `own`.

    Args:
        data: the config as plain data.
        sections: keisei's sections.

    Raises:
        ValueError: the value of `keisei` is no mapping, or holds what is no section.
    """
    reserved = {*sections, KEISEI, OWN}
    colliding = {
        name
        for name, value in data.items()
        if name in sections and (KEISEI in data or not is_section(name, value, sections))
    }
    for name, value in data.items():
        if name == KEISEI:
            yield from _of_keisei(value, sections)
        elif name == OWN and _is_placed(value, reserved - colliding):
            for inner, kept in value.items():
                yield (OWN, inner), (OWN, inner), kept
        elif name == OWN or name in colliding:
            yield (OWN, name), (name,), value
        else:
            yield (name,), (name,), value


def is_section(name: str, value: Any, sections: Sections) -> bool:
    """Return whether a field is keisei's section of that name.

    Args:
        name: its name.
        value: its value, as plain data.
        sections: keisei's sections.
    """
    fields = sections.get(name)
    return fields is not None and isinstance(value, Mapping) and set(fields) >= value.keys()


def mixed(data: Mapping[str, Any], sections: Sections) -> dict[str, list[str]]:
    """Return the fields that are the user's own although some of their keys are keisei's.

    Args:
        data: the config as plain data.
        sections: keisei's sections.

    Returns:
        By name, the keys that are not keisei's.
    """
    found: dict[str, list[str]] = {}
    for name, fields in sections.items() if KEISEI not in data else ():
        value = data.get(name)
        if isinstance(value, Mapping) and set(fields) & value.keys():
            found[name] = [key for key in value if key not in fields]
    return {name: others for name, others in found.items() if others}


def _is_placed(own: Any, free: Collection[str]) -> bool:
    """Return whether a field `own` is what was put there, and holds no other's place."""
    return isinstance(own, Mapping) and set(free) >= own.keys()


def _of_keisei(value: Any, sections: Sections) -> Iterator[tuple[Path, Path, Any]]:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{KEISEI}: it is a {type(value).__name__}; it holds keisei's sections, such as "
            "`keisei: {env: {seed: 1}}`: rename a field of your own"
        )
    for name, inner in value.items():
        if name not in sections:
            import difflib

            close = difflib.get_close_matches(name, sections, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(sections)}"
            raise ValueError(f"{KEISEI}.{quoted(name, 200)[1:-1]}: unknown key; {hint}")
        yield (name,), (KEISEI, name), inner
