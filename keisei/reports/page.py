"""The report as one HTML file, which asks nothing of the network and opens from the disk."""

from __future__ import annotations

import hashlib
import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files

import keisei
from keisei.analysis.checking import Checked
from keisei.analysis.comparing import Compared
from keisei.journal.records import SYSTEM
from keisei.reports import judged, pictured, sections, usage
from keisei.reports.gathering import Gathered, RunReport
from keisei.reports.markup import Markup, el, joined, table
from keisei.reports.words import duration, shown_value
from keisei.store.rows import MetricSummary

_CHARTS = "charts.js"  # of the page, which draws the same charts
_SERVER = "api.js"  # what they ask, for which the report answers itself
_IMPORT = re.compile(r"^import [^;]*? from \"\./([\w.]+)\";\n", re.M)
_EXPORT = re.compile(r"^export (?=class|function|const|async)", re.M)
_ID = re.compile(r'<section id="([a-z]+)"><h2>([^<]*)</h2>')


def html_page(
    gathered: Gathered,
    compared: Compared | None,
    checked: Mapping[str, Checked | str],
    most_media: int = pictured.MOST_BYTES,
) -> bytes:
    """Return the whole file.

    Args:
        gathered: what is shown of the runs.
        compared: in what they differ, where there are several.
        checked: what was found of each run against its baselines.
        most_media: how many bytes of images, videos and sounds are put into the file at most.
    """
    names = [report.row.name for report in gathered.runs]
    if compared is None:
        body = _one(gathered, checked, most_media)
    else:
        body = _several(gathered, compared, checked, most_media)
    title = names[0] if len(names) == 1 else f"{len(names)} runs"
    script, style, data = _script(), _style(), _data(gathered)
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; media-src data:; "
        f"script-src {_hash(script)}; style-src {_hash(style)}"
    )
    head = [
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="referrer", content="no-referrer"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} · keisei"),
        el("style", Markup(style)),
    ]
    parts = [
        el("a", "To the content", class_="skip", href="#content"),
        el("main", _links(body), body, _foot(), id="content", tabindex="-1"),
        el("script", Markup(data), type="application/json", id="data"),
        el("script", Markup(script), type="module"),
    ]
    page = el("html", el("head", head), el("body", parts, class_="report"), lang="en")
    return f"<!doctype html>\n{page}\n".encode()


def _one(gathered: Gathered, checked: Mapping[str, Checked | str], most_media: int) -> list[Markup]:
    report = gathered.runs[0]
    found = [
        sections.head(report),
        _problems(report),
        judged.verdicts(checked),
        _charts(gathered),
        sections.metrics(_own(report), gathered.listed, gathered.lines.left_out()),
        *usage.used(report),
        pictured.media(report.media, most_media),
        sections.config(report),
        sections.origin(report),
        sections.checkpoints(report),
        sections.events(report),
        sections.log(report),
    ]
    return [one for one in found if one is not None]


def _own(report: RunReport) -> dict[str, MetricSummary]:
    """Return the metrics that are no machine's: what those came to is among the resources."""
    known = report.row.metrics.items()
    return {key: one for key, one in known if not key.startswith(SYSTEM)}


def _several(
    gathered: Gathered,
    compared: Compared,
    checked: Mapping[str, Checked | str],
    most_media: int,
) -> list[Markup]:
    runs = gathered.runs
    rows = [
        (
            el("bdi", one.row.name),
            sections.status(one.row.status),
            shown_value(one.row.started, "started") if one.row.started else "",
            duration(one.row.duration_s) if one.row.duration_s is not None else "",
            sections.number(one.row.attempt),
            f"{one.rows:,}",
            ", ".join(one.row.tags),
        )
        for one in runs
    ]
    heads = ("Run", "Status", "Started", "Duration", "Attempt", "Rows", "Tags")
    found = [
        el(
            "header",
            el("h1", f"{len(runs)} runs"),
            table(heads, rows, numbers=(3, 4, 5), caption="The runs"),
            class_="head",
        ),
        judged.verdicts(checked),
        _charts(gathered),
        judged.comparison([one.row for one in runs], compared),
        sections.metrics({}, gathered.listed, {}),
        *(_folded(one, number, most_media // len(runs)) for number, one in enumerate(runs, 1)),
    ]
    return [one for one in found if one is not None]


def _folded(report: RunReport, number: int, most_media: int) -> Markup:
    """Return one of several runs, folded away; what links lead to has its number in it."""
    inner = joined(
        [
            sections.outcome(report),
            _problems(report),
            usage.used(report),
            pictured.media(report.media, most_media),
            sections.config(report),
            sections.origin(report),
            sections.checkpoints(report),
            sections.events(report),
            sections.log(report),
        ]
    )
    numbered = Markup(inner.replace('<section id="', f'<section id="run{number}-'))
    title = el("h2", "Run ", el("bdi", report.row.name))
    return el("details", el("summary", title), numbered, class_="run")


def _problems(report: RunReport) -> Markup | None:
    found = [el("p", f"It could not be read: {one}", class_="problem") for one in report.problems]
    return joined(found) if found else None


def _charts(gathered: Gathered) -> Markup:
    if not gathered.lines.lines:
        said = el("p", "No metrics were logged.", class_="summary")
        return sections.section("charts", "Charts", said)
    without = el("noscript", el("p", "The charts are drawn by a script, which is turned off here."))
    return sections.section("charts", "Charts", without, el("div", id="drawn"))


def _links(body: Sequence[Markup]) -> Markup:
    found = [match for part in body if (match := _ID.match(part))]
    links = [el("a", Markup(match[2]), href=f"#{match[1]}") for match in found]
    return el("nav", links, class_="sections", aria_label="Sections")


def _foot() -> Markup:
    now = time.strftime("%Y-%m-%d %H:%M %z")
    return el("footer", f"Made by keisei {keisei.__version__} at {now}.", class_="dim")


def _data(gathered: Gathered) -> str:
    lines = gathered.lines
    data = {
        "runs": [report.row.name for report in gathered.runs],
        "rows": [report.rows for report in gathered.runs],
        "metrics": gathered.drawn,
        "xs": lines.xs,
        "lines": lines.lines,
    }
    dumped = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return dumped.replace("<", "\\u003c")  # so nothing in it ends the script


def _script() -> str:
    own = (files("keisei.reports") / "static" / "report.js").read_text(encoding="utf-8")
    return "\n".join([*_modules(_CHARTS, {_SERVER}), own])


def _modules(name: str, known: set[str]) -> Iterator[str]:
    """Yield a script of the page behind those that it imports, as parts of one.

    Args:
        name: its file's name.
        known: those that are there, or are not wanted.
    """
    known.add(name)
    script = (files("keisei.dashboard") / "static" / name).read_text(encoding="utf-8")
    for imported in _IMPORT.findall(script):
        if imported not in known:
            yield from _modules(imported, known)
    yield _EXPORT.sub("", _IMPORT.sub("", script))


def _style() -> str:
    shared = files("keisei.dashboard") / "static" / "style.css"
    own = files("keisei.reports") / "static" / "report.css"
    return shared.read_text(encoding="utf-8") + own.read_text(encoding="utf-8")


def _hash(inline: str) -> str:
    digest = hashlib.sha256(inline.encode()).digest()
    return f"'sha256-{b64encode(digest).decode()}'"
