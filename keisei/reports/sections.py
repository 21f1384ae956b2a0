"""The sections of a report on one run, as HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from keisei.errors import quoted
from keisei.provenance.reading import mappings, part, texts
from keisei.redaction import clean
from keisei.reports.gathering import RunReport
from keisei.reports.markup import Child, Markup, el, table
from keisei.reports.words import code_in_words, duration, shown_value
from keisei.store.rows import MetricSummary

_KINDS = {
    "running": "run",
    "elsewhere": "else",
    "completed": "ok",
    "cancelled": "warn",
    "preempted": "warn",
}
_MOST_PACKAGES = 1_000
_MOST_ROWS = 1_000  # of a config, or of checkpoints
_SHORT = 300  # characters of a value


def status(state: str) -> Markup:
    """Return how a run stands, in its colour."""
    return el("span", state, class_=f"state state-{_KINDS.get(state, 'bad')}")


def section(name: str, title: str, *children: Child) -> Markup:
    """Return a section with a heading, which a link leads to."""
    return el("section", el("h2", title), *children, id=name)


def folded(title: str, *children: Child, is_open: bool = False) -> Markup:
    """Return what can be folded away, and is at first."""
    return el("details", el("summary", title), *children, open=is_open)


def facts(known: Mapping[str, Child]) -> Markup:
    """Return names and values beside each other; what is not known is left out."""
    there = ((key, value) for key, value in known.items() if value not in (None, "", False))
    return el(
        "dl",
        [
            el("div", el("dt", key), el("dd", value), class_=f"fact fact-{key}")
            for key, value in there
        ],
        class_="facts",
    )


def head(report: RunReport) -> Markup:
    """Return a run's name, how it stands, its labels, and the facts about it."""
    row, about = report.row, report.about
    trackers = ", ".join(f"{name} ({state})" for name, state in row.trackers.items())
    known: dict[str, Child] = {
        "started": shown_value(row.started, "started") if row.started else None,
        "ended": shown_value(row.ended, "ended") if row.ended else None,
        "duration": duration(row.duration_s) if row.duration_s is not None else None,
        "attempt": row.attempt,
        "rows": f"{report.rows:,}",
        "metrics": f"{len(report.keys):,}",
        "owner": about.get("owner"),
        "trackers": trackers,
        "parts": _parts(report.parts),
        "code": code_in_words(part(report.snapshot, "code")),
        "id": row.session_id,
        "directory": row.directory,
    }
    tags = [el("span", el("span", tag, class_="chip-text"), class_="chip") for tag in row.tags]
    note = clean(row.note) if row.note else None
    labels = [el("span", tags, class_="tags") if tags else None, note and lines(note, "note")]
    return el(
        "header",
        el("h1", el("bdi", row.name), " ", status(row.status)),
        el("div", labels, class_="labels") if any(labels) else None,
        outcome(report),
        facts(known),
        class_="head",
    )


def outcome(report: RunReport) -> Markup | None:
    """Return why a run has failed, or that nobody has said its end."""
    row = report.row
    if row.failure:
        return el("p", el("b", "Failed: "), clean(row.failure), class_="problem")
    said = {
        "died": "Its process died without an end: what is shown is what it had logged until then.",
        "lost": "Its host is gone: what is shown is what it had logged until then.",
        "running": "It is running: this is how it stood when the report was made.",
        "elsewhere": "It runs on another host: this is how it stood when the report was made.",
    }.get(row.status)
    return el("p", said, class_="summary") if said else None


def metrics(
    named: Mapping[str, MetricSummary], listed: Iterable[str], left_out: Mapping[str, int]
) -> Markup | None:
    """Return a table of what the metrics have come to, and the names of those not drawn.

    Args:
        named: what each that is drawn has come to.
        listed: the others.
        left_out: how many values of each are no finite number.
    """
    rows = []
    for key, one in named.items():
        odd = left_out.get(key, 0)
        values = f"{one.count:,}" + (f" ({odd:,} not finite)" if odd else "")
        last = "NaN" if one.last is None else number(one.last)
        rows.append((key, last, number(one.min), number(one.max), number(one.step), values))
    others = [*listed]
    if not rows and not others:
        return None
    heads = ("Metric", "Last", "Least", "Greatest", "Last step", "Values")
    parts: list[Child] = []
    if rows:
        parts.append(table(heads, rows, numbers=range(1, 6), caption="What the metrics came to"))
    if others:
        shown = [el("li", key) for key in others[:20_000]]
        more = f"{len(others):,} more metrics, not drawn: choose them with --metric"
        parts.append(folded(more, el("ul", shown, class_="names")))
    return section("metrics", "Metrics", *parts)


def config(report: RunReport) -> Markup | None:
    """Return a run's config, each value with where it came from and what it beat."""
    found = report.about.get("config") or []
    if not found:
        return None
    known = any(one.get("from") for one in found)
    changed = [one for one in found if one.get("from") not in (None, "default")]
    parts: list[Child] = []
    if known:
        parts.append(el("h3", "Set by somebody"))
        parts.append(
            _leaves(changed, "Values that are no defaults", known=True)
            if changed
            else el("p", "Nothing: all values are defaults.", class_="dim")
        )
        parts.append(folded(f"All {len(found):,} values", _leaves(found, "The config", known=True)))
    else:
        parts.append(_leaves(found, "The config", known=False))
    return section("config", "Config", *parts)


def origin(report: RunReport) -> Markup | None:
    """Return what a run was started from: its code, command, machine and packages."""
    snapshot = report.snapshot
    if snapshot is None:
        return None
    machine, command = part(snapshot, "machine"), part(snapshot, "command")
    packages = part(snapshot, "packages")
    gpus = [str(gpu.get("model")) for gpu in mappings(machine, "gpus")]
    code = part(snapshot, "code")
    known: dict[str, Child] = {
        "code": code_in_words(code) or "not in a repository",
        "commit": code.get("commit"),
        "command": el("code", " ".join(map(_word, texts(command, "arguments")))),
        "in": command.get("directory"),
        "host": machine.get("host"),
        "system": _joined(machine, "system", "container"),
        "processor": _joined(machine, "processor", "usable_cores"),
        "gpus": ", ".join([*gpus, *([str(machine["driver"])] if machine.get("driver") else [])]),
        "python": _joined(machine, "implementation", "python"),
    }
    variables = part(command, "environment")
    parts: list[Child] = [facts(known)]
    for one in texts(snapshot, "differs")[:50]:
        parts.append(el("p", "Differs from the attempt before: ", one, class_="warn"))
    for change in mappings(snapshot, "config_changes")[:50]:
        words = f"{change.get('key')}: {change.get('earlier')}, now {change.get('now')}"
        parts.append(el("p", "Config changed: ", words, class_="warn"))
    if variables:
        rows = [(key, el("code", str(value))) for key, value in variables.items()]
        title = f"{len(rows):,} environment variables"
        parts.append(folded(title, table(("Name", "Value"), rows, caption="Environment")))
    if packages:
        versions = [(key, str(value)) for key, value in [*packages.items()][:_MOST_PACKAGES]]
        title = f"{len(packages):,} packages"
        parts.append(folded(title, table(("Package", "Version"), versions, caption="Packages")))
    return section("origin", "Code and environment", *parts)


def checkpoints(report: RunReport) -> Markup | None:
    """Return a table of a run's checkpoints, the newest first."""
    known = report.checkpoints
    if known is None:
        return None
    there = known.there
    stored = [*reversed(there.checkpoints)]
    rows = []
    for one in [*([there.final_model] if there.final_model else []), *stored][:_MOST_ROWS]:
        checkpoint = one.checkpoint
        marks = [mark for mark in ("latest", "best") if getattr(known, mark) == one.name]
        if one is there.final_model:
            marks.append("final model")
        values = ", ".join(f"{key} {number(value)}" for key, value in _metrics_of(checkpoint))
        rows.append(
            (one.name, number(checkpoint.step), size(checkpoint.size), values, ", ".join(marks))
        )
    faults = [
        el("p", f"{one.name}: {one.problem}", class_="problem") for one in there.unusable[:50]
    ]
    if not rows and not faults:
        return None
    heads = ("Checkpoint", "Step", "Size", "Metrics", "")
    title = f"{len(stored):,} checkpoints" if len(stored) != 1 else "1 checkpoint"
    shown = table(heads, rows, numbers=(1, 2), caption="Checkpoints") if rows else None
    return section("checkpoints", "Checkpoints", el("p", title, class_="summary"), faults, shown)


def events(report: RunReport) -> Markup | None:
    """Return the last events that a run has logged, and its attempts."""
    if not report.events:
        return None
    rows = [
        (
            shown_value(one["time"], "started"),
            number(one["attempt"]),
            one["name"],
            el("code", quoted(json.dumps(one["data"], ensure_ascii=False), 2_000)[1:-1]),
        )
        for one in reversed(report.events)
    ]
    shown = table(("Time", "Attempt", "Event", "What"), rows, numbers=(1,), caption="Events")
    return section("events", "Events", shown)


def log(report: RunReport) -> Markup | None:
    """Return the last lines of a run's log."""
    if not report.log:
        return None
    shown = [el("div", line or " ", class_=f"line{_level(line)}") for line in report.log]
    said = f"The last {len(report.log):,} lines of training.log"
    body = el("div", shown, class_="log", tabindex="0", role="region", aria_label=said)
    return section("log", "Log", el("p", said, class_="summary"), body)


def lines(value: str, class_: str) -> Markup:
    """Return a text of several lines."""
    return el("pre", [[one, Markup("\n")] for one in value.splitlines()], class_=class_)


def number(value: object) -> str:
    """Return a number as people read it; nothing where there is none."""
    if value is None:
        return ""
    return f"{value:,}" if type(value) is int else shown_value(value)


def size(count: float) -> str:
    """Return a number of bytes in its unit."""
    from keisei.reports.words import in_unit

    return in_unit("size_bytes", count)


def _leaves(found: Iterable[Mapping[str, Any]], caption: str, *, known: bool) -> Markup:
    rows: list[list[Child]] = []
    for one in [*found][:_MOST_ROWS]:
        cells: list[Child] = [one["key"], el("code", _value(one.get("value")))]
        if known:
            before = [f"{_value(b.get('value'))} ({b.get('from')})" for b in one.get("before", ())]
            cells += [one.get("from") or "", ", ".join(before)]
        rows.append(cells)
    heads = ("Key", "Value", "From", "Instead of") if known else ("Key", "Value")
    return table(heads, rows, caption=caption)


def _value(value: object) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= _SHORT else f"{shown[:_SHORT]} …"


def _parts(names: list[str]) -> str | None:
    if not names:
        return None
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{len(names)}: {', '.join(names[:8])}{more}"


def _metrics_of(checkpoint: object) -> Iterable[tuple[str, object]]:
    found = getattr(checkpoint, "metrics", None)
    return [*found.items()][:5] if isinstance(found, Mapping) else []


def _joined(data: Mapping[str, Any], *keys: str) -> str:
    units = {"usable_cores": " cores"}
    return ", ".join(f"{data[key]}{units.get(key, '')}" for key in keys if data.get(key))


def _word(word: str) -> str:
    return json.dumps(word, ensure_ascii=False) if " " in word or not word else word


def _level(line: str) -> str:
    start = line[:120]
    if "ERROR" in start or "CRITICAL" in start:
        return " line-bad"
    return " line-warn" if "WARNING" in start else ""
