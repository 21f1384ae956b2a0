"""Values of runs as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from keisei.monitoring.money import rounded
from keisei.provenance.reading import mappings, texts

TIMES = ("started", "ended")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_LOADS = ("cpu", "cpu_cgroup", "cpu_host", "cpu_throttled", "memory", "load", "used")
_LOADS_TOO = ("memory_cgroup", "memory_host")


def shown_value(value: object, column: str = "") -> str:
    """Return a value as people read it.

    Args:
        value: the value.
        column: the column that it stands in.
    """
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if column in TIMES and isinstance(value, float):
        return datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M")
    if column == "duration" and isinstance(value, float):
        return duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Return a duration in the two largest of days, hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    total = round(seconds)
    parts = [
        (total // 86400, "d"),
        (total // 3600 % 24, "h"),
        (total // 60 % 60, "m"),
        (total % 60, "s"),
    ]
    first = next(i for i, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2])


def cost_in_words(totals: Mapping[str, object]) -> str:
    """Return what a run has cost in a line.

    Args:
        totals: the amounts by their currency; how many things have no price, as `unpriced`.
    """
    known = [f"{rounded(Decimal(str(totals[one])))} {one}" for one in totals if one != "unpriced"]
    unpriced = totals.get("unpriced")
    return ", ".join([*known, *([f"{unpriced} unpriced"] if unpriced else [])])


def non_finite(number: float) -> str:
    """Return the text that stands for a number that JSON cannot hold."""
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def in_unit(name: str, value: float) -> str:
    """Return a number with the unit that its name says.

    Args:
        name: the metric's name, without `system/`.
        value: the number.
    """
    last = name.rpartition(".")[2]
    if last in (*_LOADS, *_LOADS_TOO):
        return f"{value:.1f} %"
    if last.endswith("_watts"):
        return f"{value:,.0f} W"
    if last.endswith("_celsius"):
        return f"{value:.0f} °C"
    if "bytes" in last:
        size, unit = value, 0
        while abs(size) >= 1024 and unit < len(_UNITS) - 1:
            size, unit = size / 1024, unit + 1
        shown = f"{size:.0f}" if unit == 0 else f"{size:.1f}"
        return f"{shown} {_UNITS[unit]}{'/s' if last.endswith('_per_s') else ''}"
    return f"{value:,.4g}"


def rate(value: float) -> str:
    """Return how many of something come in a second, in four digits, or as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def code_in_words(code: Mapping[str, Any]) -> str:
    """Return in a line which code a run was started from; empty where that is not recorded."""
    if code.get("problem"):
        return f"not recorded: {code['problem']}"
    if "changed" not in code:
        return ""
    commit = str(code.get("commit") or "no commit yet")[:12]
    branch = f" on {code['branch']}" if code.get("branch") else ""
    if not code.get("is_dirty"):
        return f"{commit}{branch}, no changes"
    missing = len(mappings(code, "left_out"))
    counts = [f"{code.get('changed')} changed", f"{code.get('untracked')} untracked"]
    counts += [f"{missing} left out"] if missing else []
    scrubbed = len(texts(code, "scrubbed"))
    counts += [f"{scrubbed} with hidden secrets"] if scrubbed else []
    return f"{commit}{branch}, {', '.join(counts)}"


def allocation_in_words(known: Mapping[str, Any]) -> str:
    """Return on what a run has been, and what energy it took, in one line.

    Args:
        known: what the run has used of its machines, as `read_resources_used` returns it.
    """
    words = [f"{known['nodes']:,} node{'s' if known['nodes'] != 1 else ''}"]
    if known["gpus"] is not None:
        words.append(f"{known['gpus']:,} GPU{'s' if known['gpus'] != 1 else ''}")
    if (cpus := known["limits"].get("cpus")) is not None:
        words.append(f"{cpus:g} of {known['limits'].get('cpus_host', cpus):g} CPUs")
    if (limit := known["limits"].get("memory_limit_bytes")) is not None:
        words.append(f"at most {in_unit('_bytes', limit)} of memory")
    energy = known["energy_j"]
    words.append("energy not measured" if energy is None else f"{energy / 3.6e6:,.4g} kWh measured")
    return ", ".join(words)
