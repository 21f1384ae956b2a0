"""The conformance kit of samplers: checks that one can be read, again and again, beside others."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

from keisei.errors import describe
from keisei.monitoring.making import SamplerFactory, SamplerInfo
from keisei.monitoring.once import MachineLocks
from keisei.monitoring.readings import Reading, Sample, Source, line_of, sample_in, under

T = TypeVar("T")

_TIMES = 5
_PATIENCE = 7.5  # seconds: half of the interval that sessions have by default


def check_sampler(make: SamplerFactory, **options: Any) -> list[str]:
    """Check that a sampler keeps to the protocol; call it in a test of your sampler.

    Args:
        make: makes the sampler, as its entry point does.
        options: what it is made with.

    Returns:
        What was checked, a sentence each.

    Raises:
        AssertionError: a check has failed; the message says which, and how.
    """
    checked = ["it is made and read on threads that are not the main one, each time in time"]
    source = _in_time(lambda: make(_info(), **options), "its making")
    _require(callable(getattr(source, "read", None)), "what is made has no method read")
    readings = [_in_time(lambda: _read(source), "a reading") for _ in range(_TIMES)]
    sample = Sample()
    for reading in readings:
        if reading is not None:
            sample.add("sampler", reading)
    checked.append("what it reads is a Reading of numbers by name, or None")
    _require(
        any(reading is not None for reading in readings),
        "it reads nothing: check it where there is something of its kind",
    )
    found = sample_in(line_of(sample))
    _require(found is not None, "what it reads cannot be written as a line")
    checked.append("it can be sent to the program")
    _require(
        bool(sample.metrics or sample.energy or sample.states.keys() - {"sampler"}),
        "it reads no number, and says of nothing why it is not measured",
    )
    counted = [reading.energy for reading in readings if reading is not None]
    for before, after in pairwise(counted):
        for name in before.keys() & after.keys():
            fell = after[name].joules < before[name].joules and not after[name].size
            _require(not fell, f"its counter {name!r} goes back, and says no size")
    checked.append("its counters only grow")
    again = _in_time(lambda: _read(make(_info(), **options)), "a reading by another one")
    _require(
        (again is None) == (readings[-1] is None), "a second one beside it does not read the same"
    )
    checked.append("two of them can be read beside each other")
    return checked


def _info() -> SamplerInfo:
    return SamplerInfo(os.getpid(), os.getcwd(), MachineLocks("", 0))


def _read(source: Source) -> Reading | None:
    reading: object = source.read()
    return None if reading is None else under("sampler", reading)


def _in_time(call: Callable[[], T], what: str) -> T:
    """Return what a call returns on a thread of its own."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as exc:  # noqa: BLE001 - told below
            errors.append(exc)

    began = time.monotonic()
    thread = threading.Thread(target=run, name="keisei-check", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if errors:
        raise AssertionError(f"check_sampler: {what} fails: {describe(errors[0])}") from errors[0]
    took = time.monotonic() - began
    _require(bool(outcome), f"{what} has taken {took:.1f} s: it would be shown as hung")
    return outcome[0]


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise AssertionError(f"check_sampler: {problem}")
