"""Reads all that a report shows of a run; what cannot be read is left out, and named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from keisei._io.directories import OpenDirectory
from keisei.checkpoints import layout, pointers
from keisei.checkpoints.listing import Found, found
from keisei.dashboard import details
from keisei.dashboard.series import RunSeries
from keisei.errors import KeiseiError
from keisei.journal.media import Media, is_there, media_in, with_superseded
from keisei.journal.reader import RunJournal
from keisei.monitoring.lag_table import STALL
from keisei.monitoring.ledger import COST, HELD, RESOURCES, TOKENS
from keisei.monitoring.time_used import read_time_used
from keisei.provenance.reading import read_origins, read_snapshot
from keisei.redaction import clean
from keisei.reports.lines import Lines, most_metrics
from keisei.reports.spent import Spent, read_spent
from keisei.run.layout import TRAINING_LOG
from keisei.run.log_tail import LogTail
from keisei.store.directories import models_of
from keisei.store.rows import MetricSummary, RunRow

MOST_LOG_LINES = 200
MOST_EVENTS = 100

_LONGEST_LINE = 2_000  # characters
# Events that have a section of their own.
_SECTIONS = frozenset(["checkpoint", "provenance", COST, TOKENS, HELD, RESOURCES, STALL])

T = TypeVar("T")


@dataclass
class Checkpoints:
    """The checkpoints of a run.

    Attributes:
        there: what stands in the directory of its models.
        latest: the name of the one that `latest` points at.
        best: the name of the one that `best` points at.
    """

    there: Found
    latest: str | None
    best: str | None


@dataclass
class RunReport:
    """What a report shows of one run.

    Attributes:
        row: the run, as lists show it; its metrics are those of the report.
        about: its facts, config and origin, as the page has them.
        snapshot: what its last attempt was started from.
        attempts: of which attempts there is a journal.
        parts: the ranks and members that have one of their own.
        rows: how many rows it has.
        keys: the names of all its metrics, in the order in which they came.
        time: what its time was used for.
        spent: what it has used of its machines and its loop, and what it has cost.
        media: what it keeps besides numbers.
        checkpoints: its checkpoints; ``None`` where they are not here.
        log: the last lines of its log.
        events: the last events that it has logged.
        problems: what could not be read.
    """

    row: RunRow
    about: dict[str, Any] = field(default_factory=dict)
    snapshot: Mapping[str, Any] | None = None
    attempts: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    rows: int = 0
    keys: list[str] = field(default_factory=list)
    time: dict[str, Any] | None = None
    spent: Spent = field(default_factory=Spent)
    media: list[Media] = field(default_factory=list)
    checkpoints: Checkpoints | None = None
    log: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class Gathered:
    """What a report shows.

    Attributes:
        runs: each run.
        drawn: the metrics that are drawn.
        listed: the others.
        lines: what the charts are drawn from.
    """

    runs: list[RunReport]
    drawn: list[str]
    listed: list[str]
    lines: Lines


def gather(rows: Sequence[RunRow], choose: Callable[[list[str]], list[str]]) -> Gathered:
    """Read all that is shown of some runs.

    Args:
        rows: the runs.
        choose: returns which of the metrics' names are wanted.
    """
    reports = [RunReport(row) for row in rows]
    series = [_read(report) for report in reports]
    there = dict.fromkeys(key for report in reports for key in report.keys)
    wanted = choose(list(there))
    most = most_metrics(len(rows))
    keys = wanted[:most]
    chosen = frozenset(keys)
    held = [frozenset(report.keys) for report in reports]
    lines = Lines([row.name for row in rows], sum(key in one for one in held for key in keys))
    summaries: list[dict[str, MetricSummary]] = [{} for _ in reports]
    for key in keys:
        for number, run in enumerate(series):
            if key in held[number] and (one := lines.add(number, run, key)) is not None:
                summaries[number][key] = one
    for report, metrics in zip(reports, summaries, strict=True):
        report.row = replace(report.row, metrics=metrics)
    listed = [key for key in there if key not in chosen]
    return Gathered(reports, keys, listed, lines)


def _read(report: RunReport) -> RunSeries:
    """Read what is known of a run; return its series."""
    row, directory = report.row, report.row.directory
    series = RunSeries(directory)
    problems = report.problems

    def known(what: str, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except (OSError, KeiseiError, ValueError) as exc:
            problems.append(f"{what}: {clean(str(exc))}")
            return otherwise

    known("metrics", series.refresh, 0)
    series.close()
    origins = known("origins of the config", lambda: read_origins(directory), None)
    report.snapshot = known("origin", lambda: read_snapshot(directory), None)
    report.about = details.run_data(row, origins, report.snapshot)
    journal = RunJournal(directory)
    report.attempts = known("attempts", journal.attempts, [])
    report.parts = known("parts", journal.parts, [])
    report.rows, report.keys = series.rows, series.keys()
    report.time = known("time", lambda: read_time_used(directory), None)
    report.spent = read_spent(directory)
    report.media = _media(series)
    report.checkpoints = _checkpoints(row)
    report.log = known("log", lambda: _log(directory), [])
    said = [event for event in series.events if not _is_shown_elsewhere(event.name)]
    report.events = clean(details.event_data(said[-MOST_EVENTS:]))
    return series


def _is_shown_elsewhere(event: str) -> bool:
    return event in _SECTIONS or event.startswith("usage.")


def _media(series: RunSeries) -> list[Media]:
    found = (media_in(event, series.directory) for event in series.media)
    marked = with_superseded([one for one in found if one is not None], series.cuts)
    return [one for one in marked if not one.superseded and is_there(one)]


def _checkpoints(row: RunRow) -> Checkpoints | None:
    try:
        with OpenDirectory(models_of(row.directory)) as models:
            latest, best = (pointers.pointed(models, name) for name in (layout.LATEST, layout.BEST))
            return Checkpoints(found(models, row.session_id), latest, best)
    except (OSError, KeiseiError):
        return None


def _log(directory: str) -> list[str]:
    log = LogTail(directory, TRAINING_LOG)
    try:
        lines = [*log.last(MOST_LOG_LINES), *log.rest()]
    finally:
        log.close()
    return [_cut(clean(line)) for line in lines[-MOST_LOG_LINES:]]


def _cut(line: str) -> str:
    left = len(line) - _LONGEST_LINE
    return line if left <= 0 else f"{line[:_LONGEST_LINE]} … {left:,} characters more"
