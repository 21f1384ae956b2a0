"""What the page shows beside the rows: what a run has used, its verdict, and how runs differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from keisei.analysis.checking import Options, check
from keisei.analysis.comparing import compare
from keisei.dashboard.details import plain
from keisei.monitoring.lag_used import read_lag_used
from keisei.monitoring.money import rounded
from keisei.monitoring.resources_used import read_resources_used
from keisei.monitoring.run_events import ledger_of
from keisei.monitoring.time_used import read_time_used
from keisei.redaction import clean
from keisei.store.rows import RunRow

MOST_LINES = 500  # of one part of a comparison, and of a ledger
_MOST_REASONS = 5  # runs that are no baselines, and why


def usage_data(directory: str, *, is_running: bool) -> dict[str, Any]:
    """Return what a run has used of time, money and machines, and what has held its loops.

    It is read from the run's journals, so it takes as long as they are large. What cannot be read
    is ``None``, and its reason is in `problems`.

    Args:
        directory: the run's directory.
        is_running: whether there is anything left to wait for.
    """
    problems: dict[str, str] = {}

    def read(name: str, reader: Callable[[str], Any]) -> Any:
        try:
            return plain(reader(directory))
        except (OSError, ValueError) as exc:
            problems[name] = clean(str(exc))
            return None

    used = read("time", read_time_used)
    if used and used["throughput"] and not is_running:
        used["throughput"]["time_to_go_s"] = None
    return {
        "time": used,
        "lag": read("lag", read_lag_used),
        "resources": read("resources", read_resources_used),
        "cost": read("cost", _cost),
        "problems": problems,
    }


def verdict_data(row: RunRow, baselines: Iterable[RunRow]) -> dict[str, Any]:
    """Return the verdict on a run against those that have the tag `baseline`.

    Args:
        row: the run.
        baselines: the runs that have it.

    Raises:
        OSError: a journal cannot be read.
    """
    others = [one for one in baselines if one.directory != row.directory]
    if not others:
        return {"against": [], "verdicts": [], "unknown": [], "left_out": {}}
    found = check([row], others, Options())
    return {
        "against": found.baselines,
        "verdicts": [{"metric": key, **plain(asdict(one))} for key, one in found.verdicts.items()],
        "unknown": found.unknown[:MOST_LINES],
        "left_out": dict([*found.left_out.items()][:_MOST_REASONS]),
    }


def compared_data(rows: Sequence[RunRow]) -> dict[str, Any]:
    """Return in what runs differ, by subject.

    Args:
        rows: the runs.
    """
    found = compare(rows, {})
    return {
        "parts": {
            part: {key: plain(each) for key, each in [*values.items()][:MOST_LINES]}
            for part, values in found.parts.items()
        },
        "left_out": {
            part: len(values) - MOST_LINES
            for part, values in found.parts.items()
            if len(values) > MOST_LINES
        },
        "not_recorded": found.not_recorded,
    }


def _cost(directory: str) -> dict[str, object] | None:
    ledger = ledger_of(directory)
    if not ledger:
        return None
    data = ledger.as_data()
    lines = sorted(ledger.lines, key=lambda line: (line.currency, -line.amount))
    return {
        **data,
        "lines": [
            {
                "what": line.what,
                "of": line.quantity,
                "amount": rounded(line.amount),
                "currency": line.currency,
            }
            for line in lines[:MOST_LINES]
        ],
        "totals": {name: rounded(total) for name, total in sorted(ledger.totals.items())},
    }
