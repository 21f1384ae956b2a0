"""The sections of a report that hold runs against each other: verdicts, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keisei.analysis.checking import Checked
from keisei.analysis.comparing import SUBJECTS, Compared
from keisei.errors import quoted
from keisei.reports.markup import Child, Markup, el, table
from keisei.reports.sections import section, status
from keisei.reports.words import cost_in_words, shown_value
from keisei.store.rows import RunRow

_MOST = {"metrics": 100, "packages": 100, "config": 300}  # lines
_MOST_LEFT_OUT = 10
_KINDS = {"better": "ok", "same": "else", "worse": "bad", "undecided": "warn"}

VERDICT_HEADS = ("Metric", "Verdict", "Value", "Expected", "Noise band", "Difference", "Why")


def verdict_cells(found: Checked) -> list[tuple[str, ...]]:
    """Return the cells of a table of verdicts."""
    return [
        (
            key,
            one.outcome,
            shown_value(one.value),
            shown_value(one.expected),
            "-" if one.low is None else f"{one.low:.5g} to {one.high:.5g}",
            "-" if one.difference is None else f"{one.difference:+.1%}",
            one.reason,
        )
        for key, one in found.verdicts.items()
    ]


def against(found: Checked) -> str:
    """Return in words which run was held against which."""
    names = [
        name if status == "completed" else f"{name} ({status})"
        for name, status in found.runs.items()
    ]
    count = len(found.baselines)
    return f"{', '.join(names)} against {count} {found.kind} {'run' if count == 1 else 'runs'}"


def verdicts(checked: Mapping[str, Checked | str]) -> Markup | None:
    """Return the verdicts on runs.

    Args:
        checked: what was found of each run, by its name; a text where it cannot be judged.
    """
    parts: list[Child] = []
    for name, found in checked.items():
        if isinstance(found, str):
            parts.append(el("p", f"{name}: {found}", class_="summary"))
            continue
        rows = [
            (key, el("span", outcome, class_=f"state state-{_KINDS.get(outcome, 'warn')}"), *rest)
            for key, outcome, *rest in verdict_cells(found)
        ]
        words = against(found)
        parts.append(el("p", words, class_="summary"))
        if rows:
            parts.append(table(VERDICT_HEADS, rows, numbers=(2, 3, 4, 5), caption=words))
        else:
            parts.append(el("p", "There is no metric to judge.", class_="dim"))
        for other, reasons in [*found.left_out.items()][: 0 if found.baselines else _MOST_LEFT_OUT]:
            text = f"{other} does not count: {'; '.join(reasons[:3])}"
            parts.append(el("p", text, class_="dim"))
    return section("verdict", "Verdict", parts) if parts else None


def comparison(rows: Sequence[RunRow], found: Compared) -> Markup:
    """Return in what runs differ, a table for each subject."""
    names = [row.name for row in rows]
    parts: list[Child] = []
    for subject, values in found.parts.items():
        unknown = frozenset(found.not_recorded.get(subject, ()))
        title = subject.capitalize()
        parts.append(el("h3", title if subject != "run" else "How they went"))
        if not values:
            parts.append(el("p", _nothing(subject, found, len(rows)), class_="dim"))
            continue
        most = _MOST.get(subject, len(values))
        shown = [
            (
                key,
                *(
                    el("span", "not recorded", class_="dim")
                    if name in unknown
                    else _cell(value, key, subject)
                    for name, value in zip(names, each, strict=True)
                ),
            )
            for key, each in [*values.items()][:most]
        ]
        is_number = subject == "metrics" or subject.startswith("time")
        right = range(1, len(rows) + 1) if is_number else ()
        parts.append(table(("", *names), shown, numbers=right, caption=title))
        if len(values) > most:
            parts.append(el("p", f"and {len(values) - most:,} more", class_="dim"))
    return section("comparison", "In what they differ", parts)


def _nothing(subject: str, found: Compared, runs: int) -> str:
    missing = found.not_recorded.get(subject, [])
    if subject not in SUBJECTS or not missing:
        return "No difference."
    if len(missing) == runs:
        return "Not recorded."
    rest = "" if len(missing) >= runs - 1 else "No difference; "
    return f"{rest}not recorded of {', '.join(missing)}."


def _cell(value: object, key: str, subject: str) -> Child:
    if value is None:
        return "-"
    if subject == "run" and key == "cost" and isinstance(value, Mapping):
        return cost_in_words(value)
    if subject == "run":
        return status(str(value)) if key == "status" else shown_value(value, key)
    if subject == "metrics" or subject.startswith("time"):
        return shown_value(value)
    return quoted(value, 200).strip("'\"")
