"""The sections of a report on what a run has used: time, money, machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keisei.monitoring.ledger import Ledger
from keisei.monitoring.money import rounded
from keisei.reports.gathering import RunReport
from keisei.reports.markup import Child, Markup, el, table
from keisei.reports.sections import section
from keisei.reports.words import allocation_in_words, duration, in_unit, rate

_MOST = 60  # lines of a table
_COLOURS = 10  # that style.css of the report has, by number


def time(known: Mapping[str, Any] | None) -> Markup | None:
    """Return what a run's time was used for, as a bar and a table."""
    if known is None:
        return None
    phases = [*known["seconds"].items()][:_MOST]
    rows: list[list[Child]] = []
    bar, begin = [], 0.0
    for at, (name, seconds) in enumerate(phases):
        share = 100 * known["shares"][name]
        shade = f"c{at % _COLOURS}"
        title = el("title", f"{name}: {share:.1f} %")
        x, width = f"{begin:.3f}%", f"{share:.3f}%"
        bar.append(el("rect", title, class_=shade, x=x, width=width, height="100%"))
        begin += share
        rows.append([[_dot(shade), name], duration(seconds), f"{share:.1f} %"])
    shown = table(("Phase", "Time", "Share"), rows, numbers=(1, 2), caption="Where the time went")
    drawn = el("svg", bar, class_="shares", role="img", aria_label="Shares of the time")
    words = []
    if known["goodput"] is not None:
        words.append(f"Goodput {known['goodput']:.1%}")
    if (speed := known["throughput"]) is not None:
        words.append(f"{rate(speed['steps_per_s'])} steps/s")
        words.append(f"lately {rate(speed['recent_steps_per_s'])}")
    said = el("p", ", ".join(words), class_="summary") if words else None
    return section("time", "Time", drawn, said, shown)


def lag(known: Mapping[str, Any] | None) -> Markup | None:
    """Return what has held a run's event loops."""
    if known is None:
        return None
    rows = []
    for one in known["functions"][:_MOST]:
        causes = sorted(one["causes"].items(), key=lambda item: -item[1])
        words = ", ".join(f"{cause} {count:,}" for cause, count in causes)
        where = f"{one['file']}:{one['line']}" if one["file"] else ""
        name = one["function"] or (f"({causes[0][0]})" if causes else "(not seen)")
        seconds = (f"{one['count']:,}", f"{one['seconds']:.3f} s", f"{one['longest_s']:.3f} s")
        rows.append((name, where, *seconds, words))
    count = known["stalls"]
    said = f"{count:,} stall{'' if count == 1 else 's'} of the event loop, "
    said += f"{known['seconds']:,.3f} s, the longest {known['longest_s']:.3f} s"
    heads = ("Function", "Where", "Stalls", "Total", "Longest", "Causes")
    shown = table(heads, rows, numbers=(2, 3, 4), caption="What has held the loop")
    return section("lag", "Loop lag", el("p", said, class_="summary"), shown if rows else None)


def cost(ledger: Ledger) -> Markup | None:
    """Return what a run has cost, the largest amounts first."""
    if not ledger:
        return None
    lines = sorted(ledger.lines, key=lambda line: (line.currency, -line.amount))
    rows: list[list[Child]] = [
        [line.what, line.quantity, rounded(line.amount), line.currency] for line in lines[:_MOST]
    ]
    rows += [
        [el("b", "total"), "", el("b", rounded(total)), currency]
        for currency, total in sorted(ledger.totals.items())
    ]
    heads = ("Cost", "Of", "Amount", "Currency")
    parts: list[Child] = []
    if rows:
        parts.append(table(heads, rows, numbers=(2,), caption="Cost"))
    tables = dict.fromkeys(name for line in ledger.lines for name in line.prices)
    if tables:
        parts.append(el("p", f"Prices: {', '.join(tables)}", class_="summary"))
    parts += [el("p", f"No price: {one}", class_="warn") for one in ledger.unpriced[:_MOST]]
    return section("cost", "Cost", parts)


def resources(known: Mapping[str, Any] | None) -> Markup | None:
    """Return what a run has used of its machines."""
    if known is None:
        return None
    names = sorted(known["peaks"])
    rows = []
    for name in names[:_MOST]:
        mean = known["means"].get(name)
        peak = in_unit(name, known["peaks"][name])
        rows.append((name, peak, "" if mean is None else in_unit(name, mean)))
    heads = ("Resource", "Peak", "Mean")
    return section(
        "resources",
        "Resources",
        el("p", allocation_in_words(known), class_="summary"),
        table(heads, rows, numbers=(1, 2), caption="Peaks and means") if rows else None,
        [
            el("p", f"{source}: {state}", class_="dim")
            for source, state in [*known["states"].items()][:_MOST]
        ],
    )


def used(report: RunReport) -> list[Markup | None]:
    """Return the sections on what a run has used."""
    spent = report.spent
    return [time(report.time), lag(spent.lag), cost(spent.cost), resources(spent.resources)]


def _dot(shade: str) -> Markup:
    dot = el("circle", class_=shade, cx="5", cy="5", r="5")
    return el("svg", dot, class_="key", viewBox="0 0 10 10", aria_hidden="true")
