"""The report as Markdown, short enough for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from keisei._text import one_line
from keisei.analysis.checking import Checked
from keisei.analysis.comparing import Compared
from keisei.errors import quoted
from keisei.journal.records import SYSTEM
from keisei.monitoring.money import rounded
from keisei.provenance.reading import part
from keisei.redaction import clean
from keisei.reports.gathering import Gathered, RunReport
from keisei.reports.judged import VERDICT_HEADS, against, verdict_cells
from keisei.reports.sections import number
from keisei.reports.words import code_in_words, duration, shown_value

_MOST_METRICS, _MOST_LINES, _MOST_CONFIG = 40, 40, 30
_LONGEST = 200  # characters of a cell
_MARKS = {
    "better": "🟢 better",
    "worse": "🔴 worse",
    "same": "⚪ same",
    "undecided": "🟡 undecided",
}
_PLAIN = re.compile(r"[\w ./:%+,=-]*")


def markdown(
    gathered: Gathered, compared: Compared | None, checked: Mapping[str, Checked | str]
) -> bytes:
    """Return the report.

    Args:
        gathered: what is shown of the runs.
        compared: in what they differ, where there are several.
        checked: what was found of each run against its baselines.
    """
    runs = gathered.runs
    if compared is None:
        parts = [f"## Run {cell(runs[0].row.name)}: {runs[0].row.status}", *_run(runs[0])]
    else:
        parts = [f"## {len(runs)} runs", _overview(runs)]
    for name, found in checked.items():
        if isinstance(found, str):
            parts.append(f"**Verdict on {cell(name)}:** {cell(found)}")
            continue
        rows = [(key, _MARKS[outcome], *rest) for key, outcome, *rest in verdict_cells(found)]
        parts += ["### Verdict", cell(against(found))]
        parts.append(_table(VERDICT_HEADS, rows) if rows else "There is no metric to judge.")
    if compared is None:
        parts += [*_metrics(runs[0], gathered.listed), *_config(runs[0])]
    else:
        parts += _differences([one.row.name for one in runs], compared)
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def cell(value: object) -> str:
    """Return a value as text that no Markdown changes: what could be any is code."""
    text = one_line(value)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 1]}…"
    if _PLAIN.fullmatch(text) and "://" not in text and "__" not in text:
        return text
    if text in _MARKS.values():
        return text
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|")


def _table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def _run(report: RunReport) -> list[str]:
    row = report.row
    known = {
        "Started": shown_value(row.started, "started") if row.started else None,
        "Duration": duration(row.duration_s) if row.duration_s is not None else None,
        "Attempt": row.attempt,
        "Rows": f"{report.rows:,}",
        "Code": code_in_words(part(report.snapshot, "code")) or None,
        "Cost": _cost(report),
        "Goodput": _goodput(report),
        "Failed": clean(row.failure) if row.failure else None,
        "Tags": ", ".join(row.tags) or None,
        "Note": clean(row.note) if row.note else None,
    }
    rows = [(key, value) for key, value in known.items() if value is not None]
    return [_table(("", ""), rows)]


def _overview(runs: Sequence[RunReport]) -> str:
    heads = ("Run", "Status", "Duration", "Rows", "Cost", "Tags")
    rows = [
        (
            one.row.name,
            one.row.status,
            duration(one.row.duration_s) if one.row.duration_s is not None else "",
            f"{one.rows:,}",
            _cost(one) or "",
            ", ".join(one.row.tags),
        )
        for one in runs
    ]
    return _table(heads, rows)


def _metrics(report: RunReport, listed: Sequence[str]) -> list[str]:
    known = report.row.metrics.items()
    found = {key: one for key, one in known if not key.startswith(SYSTEM)}
    if not found:
        return ["No metrics were logged."]
    rows = [
        (key, *map(number, (one.last, one.min, one.max)), number(one.step))
        for key, one in [*found.items()][:_MOST_METRICS]
    ]
    more = len(found) - len(rows) + len(listed)
    shown = _table(("Metric", "Last", "Least", "Greatest", "Step"), rows)
    return ["### Metrics", shown, f"and {more:,} more" if more else ""]


def _config(report: RunReport) -> list[str]:
    found = report.about.get("config") or []
    changed = [one for one in found if one.get("from") not in (None, "default")]
    if not changed:
        return []
    rows = [(one["key"], one.get("value"), one["from"]) for one in changed[:_MOST_CONFIG]]
    more = len(changed) - len(rows)
    shown = _table(("Key", "Value", "From"), rows)
    return ["### Config that is no default", shown, f"and {more:,} more" if more else ""]


def _differences(names: Sequence[str], found: Compared) -> list[str]:
    parts = []
    for subject, values in found.parts.items():
        if subject == "run" or not values:
            continue
        is_number = subject == "metrics" or subject.startswith("time")
        rows = [
            (key, *(shown_value(one) if is_number else _short(one) for one in each))
            for key, each in [*values.items()][:_MOST_LINES]
        ]
        more = len(values) - len(rows)
        title = "Metrics, last" if subject == "metrics" else f"{subject.capitalize()}, what differs"
        parts += [f"### {title}", _table(("", *names), rows)]
        parts.append(f"and {more:,} more" if more else "")
    return parts


def _short(value: object) -> str:
    return "-" if value is None else quoted(value, 100).strip("'\"")


def _cost(report: RunReport) -> str | None:
    totals = [
        f"{rounded(total)} {name}" for name, total in sorted(report.spent.cost.totals.items())
    ]
    return ", ".join(totals) or None


def _goodput(report: RunReport) -> str | None:
    known = report.time
    return f"{known['goodput']:.1%}" if known and known["goodput"] is not None else None
