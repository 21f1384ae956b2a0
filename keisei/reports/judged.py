"""The sections of a report that hold runs against each other: verdicts, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keisei.analysis.checking import Checked
from keisei.analysis.comparing import Compared
from keisei.reports.differing import NOT_RECORDED, has_numbers, lines_of, without_lines
from keisei.reports.markup import Child, Markup, el, table
from keisei.reports.sections import section, status
from keisei.reports.words import shown_value
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
    for subject in found.parts:
        title = subject.capitalize()
        parts.append(el("h3", title if subject != "run" else "How they went"))
        lines = lines_of(subject, found, names, 200)
        if not lines:
            text = without_lines(subject, found, len(rows))
            parts.append(el("p", f"{text[0].upper()}{text[1:]}.", class_="dim"))
            continue
        most = _MOST.get(subject, len(lines))
        shown = [
            (key, *(_cell(cell, is_status=subject == "run" and key == "status") for cell in cells))
            for key, cells in lines[:most]
        ]
        right = range(1, len(rows) + 1) if has_numbers(subject) else ()
        parts.append(table(("", *names), shown, numbers=right, caption=title))
        if len(lines) > most:
            parts.append(el("p", f"and {len(lines) - most:,} more", class_="dim"))
    return section("comparison", "In what they differ", parts)


def _cell(text: str | None, *, is_status: bool) -> Child:
    if text is None:
        return el("span", NOT_RECORDED, class_="dim")
    return status(text) if is_status else text
