"""What the page shows of runs, as plain data for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from keisei.dashboard.pixels import Drawn, drawn, smoothed
from keisei.dashboard.series import Axis, RunSeries
from keisei.journal.records import Event
from keisei.provenance.reading import origin_text, part
from keisei.store import columns
from keisei.store.rows import RunRow

MOST_EVENTS = 500
_HEAVIEST = 0.9999  # a smoothing


def row_data(row: RunRow, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Return a row of the list.

    Args:
        row: the run.
        extra: columns beside the usual ones.
    """
    data: dict[str, Any] = {
        "name": row.name,
        "status": row.status,
        "attempt": row.attempt,
        "started": row.started,
        "ended": row.ended,
        "duration": row.duration_s,
        "tags": list(row.tags),
        "note": row.note,
        "failure": row.failure,
    }
    if extra:
        data["extra"] = [plain(columns.value_of(row, name)) for name in extra]
    return data


def run_data(
    row: RunRow, origins: Mapping[str, Any] | None, snapshot: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what is shown of one run beside its metrics.

    Args:
        row: the run.
        origins: where the values of its config came from, where that is recorded.
        snapshot: what its last attempt was started from, where that is recorded.
    """
    return {
        **row_data(row),
        "id": row.session_id,
        "directory": row.directory,
        "owner": f"process {row.pid} on {row.host}" if row.host else None,
        "trackers": dict(row.trackers),
        "checkpoints": plain(dict(row.checkpoints)),
        "config": [*_explained(origins)] if origins else [*_leaves(row.config)],
        "started_from": [*_leaves(_started_from(snapshot))],
    }


def event_data(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Return events, the last ones last."""
    return [
        {
            "seq": event.seq,
            "attempt": event.attempt,
            "time": event.time,
            "name": event.name,
            "data": plain(event.data),
        }
        for event in [*events][-MOST_EVENTS:]
    ]


def series_data(
    run: RunSeries,
    key: str,
    axis: Axis,
    width: int,
    low: float | None,
    high: float | None,
    weight: float,
) -> dict[str, Any]:
    """Return one line of a chart.

    Args:
        run: the run's series.
        key: the metric's name.
        axis: what x is.
        width: how many pixels wide the chart is.
        low: the first x that is shown; ``None`` for that of the series.
        high: the last.
        weight: how much of a smoothed value stays at each row; 0 does not smooth.
    """
    xs, ys = run.series(key, axis)
    data = {"metric": key, "count": len(ys), **_points(drawn(xs, ys, width, low, high))}
    if len(ys):
        data |= {"last": plain(ys[-1]), "last_x": xs[-1], "first_x": xs[0]}
    weight = min(max(weight, 0.0), _HEAVIEST)
    if weight and len(ys):
        smooth = drawn(xs, smoothed(ys, weight), width, low, high)
        data["smooth"] = {"xs": smooth.xs, "ys": smooth.ys}
    return data


def plain(value: object) -> Any:
    """Return a value as JSON can hold it: numbers that are not finite as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _points(found: Drawn) -> dict[str, Any]:
    return {
        "xs": found.xs,
        "ys": found.ys,
        "low": found.low,
        "high": found.high,
        "left_out": found.left_out,
    }


def _explained(origins: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key, about in origins.items():
        one = about if isinstance(about, Mapping) else {}
        beat = one.get("beat")
        beaten = [each for each in beat if isinstance(each, Mapping)] if beat else []
        yield {
            "key": key,
            "value": plain(one.get("value")),
            "from": origin_text(one),
            "before": [
                {"value": plain(each.get("value")), "from": origin_text(each)} for each in beaten
            ],
        }


def _leaves(data: Mapping[str, Any], path: str = "") -> Iterator[dict[str, Any]]:
    for key, value in data.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, name)
        else:
            yield {"key": name, "value": plain(value)}


def _started_from(snapshot: Mapping[str, Any] | None) -> dict[str, Any]:
    kept = ("code", "command", "machine")
    found: dict[str, Any] = {name: dict(part(snapshot, name)) for name in kept}
    packages = part(snapshot, "packages")
    return {**found, "packages": dict(packages)} if packages else found
