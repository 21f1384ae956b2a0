"""What runs differ in, as a screen and a report both show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keisei.analysis.comparing import SUBJECTS, Compared
from keisei.errors import quoted
from keisei.reports.words import cost_in_words, shown_value

NOT_RECORDED = "not recorded"


def lines_of(
    part: str, found: Compared, runs: Sequence[str], length: int
) -> list[tuple[str, list[str | None]]]:
    """Return the keys of a part with what each run has there, ``None`` where it is not recorded.

    Args:
        part: the part.
        found: in what the runs differ.
        runs: the names of the runs, in the order in which they were compared.
        length: how many characters a value of a config may have.
    """
    unknown = set(found.not_recorded.get(part, ()))
    return [
        (
            key,
            [
                None if name in unknown else _shown(value, key, part, length)
                for name, value in zip(runs, each, strict=True)
            ],
        )
        for key, each in found.parts[part].items()
    ]


def without_lines(part: str, found: Compared, runs: int) -> str:
    """Return what there is to say of a part that has no lines.

    Args:
        part: the part.
        found: in what the runs differ.
        runs: how many runs there are.
    """
    missing = found.not_recorded.get(part, [])
    if part not in SUBJECTS or not missing:
        return "no difference"
    if len(missing) == runs:
        return NOT_RECORDED
    rest = "" if len(missing) >= runs - 1 else "no difference; "
    return f"{rest}{NOT_RECORDED} of {', '.join(missing)}"


def has_numbers(part: str) -> bool:
    """Return whether the values of a part are numbers, which stand on the right."""
    return part == "metrics" or part.startswith("time")


def _shown(value: object, key: str, part: str, length: int) -> str:
    if value is None:
        return "-"
    if part == "run" and key == "cost" and isinstance(value, Mapping):
        return cost_in_words(value)
    if part == "run":
        return shown_value(value, key)
    if has_numbers(part):
        return shown_value(value)
    return quoted(value, length).strip("'\"")
