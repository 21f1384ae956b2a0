"""Histograms: samples that are counted later, or counts and their edges."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from keisei.errors import MediaError, describe
from keisei.media.arrays import copied
from keisei.media.values import Content, Keep, Taken

MOST_BINS = 10_000


def take_histogram(samples: object, counts: object, edges: object, bins: int) -> Taken:
    """Take a histogram: samples, or counts with their edges.

    Args:
        samples: numbers, in any shape; those that are not finite are counted apart.
        counts: how many there are in each bin.
        edges: the bins' edges, one more than counts, ascending.
        bins: into how many bins samples are counted.

    Raises:
        MediaError: an argument makes no sense.
    """
    if type(bins) is not int or not 0 < bins <= MOST_BINS:
        raise MediaError(f"bins: must be an integer from 1 to {MOST_BINS:,}")
    if (samples is None) == (counts is None) or (counts is None) != (edges is None):
        raise MediaError("samples: give either samples, or counts and edges")
    if samples is None:
        content = _given(_numbers("counts", counts), _numbers("edges", edges))
        return Taken(0, lambda keep: content)
    if "numpy" in sys.modules:
        array = copied("samples", samples)

        def encode(keep: Keep) -> Content:
            import numpy as np

            flat = array.ravel().astype("float64")
            finite = flat[np.isfinite(flat)]
            if not finite.size:
                return _content([0], [0.0, 1.0], flat.size)
            found, between = np.histogram(finite, _between(finite.min(), finite.max(), bins))
            return _content(found.tolist(), between.tolist(), flat.size - finite.size)

        return Taken(array.nbytes, encode)
    plain = _numbers("samples", samples)
    return Taken(8 * len(plain), lambda keep: _counted(plain, bins))


def _numbers(argument: str, values: object) -> list[float]:
    try:
        found = [float(value) for value in values]  # type: ignore[attr-defined]
    except Exception as exc:
        raise MediaError(f"{argument}: no list of numbers: {describe(exc)}") from exc
    return found


def _between(low: float, high: float, bins: int) -> list[float]:
    """Return the edges of bins of one width."""
    low, high = float(low), float(high)
    if not high > low:
        low, high = low - 0.5, high + 0.5
        if not high > low:  # a number so large that it has no neighbour that near
            low, high = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    edges = [low * (1 - i / bins) + high * (i / bins) for i in range(bins)] + [high]
    return sorted(edges)


def _given(counts: list[float], edges: list[float]) -> Content:
    if not 0 < len(counts) <= MOST_BINS or len(edges) != len(counts) + 1:
        raise MediaError(
            f"edges: {len(counts):,} counts (1 to {MOST_BINS:,}) need one edge more, not "
            f"{len(edges):,}"
        )
    if not all(math.isfinite(edge) for edge in edges) or edges != sorted(set(edges)):
        raise MediaError("edges: must be finite, and each higher than the one before")
    if not all(math.isfinite(count) and count >= 0 for count in counts):
        raise MediaError("counts: must be finite, and none below zero")
    whole = [int(count) if count.is_integer() else count for count in counts]
    return _content(whole, edges, 0)


def _counted(samples: list[float], bins: int) -> Content:
    finite = [sample for sample in samples if math.isfinite(sample)]
    if not finite:
        return _content([0], [0.0, 1.0], len(samples))
    edges = _between(min(finite), max(finite), bins)
    counts = [0] * bins
    width = edges[-1] / bins - edges[0] / bins
    for sample in finite:
        at = int((sample - edges[0]) / width) if width else 0
        counts[min(max(at, 0), bins - 1)] += 1
    return _content(counts, edges, len(samples) - len(finite))


def _content(counts: list[Any], edges: list[float], left_out: int) -> Content:
    data: dict[str, Any] = {"counts": counts, "edges": edges}
    if left_out:
        data["not_finite"] = left_out
    text = json.dumps(data, separators=(",", ":"))
    return Content("histogram", ".json", text.encode(), about={"bins": len(counts)})
