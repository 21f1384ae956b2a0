"""Read `KEISEI__TRAINING__TOTAL_TIMESTEPS=1000` from the environment, as pydantic-settings does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from keisei.config.parsing import ParseError, parse_value

PREFIX = "KEISEI__"


def variables(
    environ: Mapping[str, str], sections: Collection[str]
) -> Iterator[tuple[str, list[str], Any]]:
    """Yield the variables that set a config's values: name, path, and value.

    The name's parts are lower-cased. The value is what an override's text is; an empty one counts
    as absent. A section as a whole (`KEISEI__ENV={"seed": 3}`) comes before its fields.

    Args:
        environ: the environment.
        sections: the names of the config's sections.

    Raises:
        ValueError: it names no section, or its value does not parse; the message shows no value.
    """
    for name in sorted(each for each in environ if each.upper().startswith(PREFIX)):
        keys = name[len(PREFIX) :].lower().split("__")
        if not environ[name].strip():
            continue
        if keys[0] not in sections or not all(keys):
            import difflib

            close = difflib.get_close_matches(keys[0], sections, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(sections)}"
            raise ValueError(f"{name}: write it as {PREFIX}SECTION__FIELD; {hint}")
        try:
            value = parse_value(environ[name])
        except (ParseError, RecursionError, ValueError) as exc:
            reason = str(exc) if isinstance(exc, ParseError) else type(exc).__name__
        else:
            yield name, keys, value
            continue
        raise ValueError(f"{name}: {reason}")
