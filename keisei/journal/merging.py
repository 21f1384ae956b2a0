"""Merges what the parts of a run have logged of one metric: one value for each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import lt
from typing import Literal, get_args

from keisei.errors import quoted
from keisei.journal.records import Value, as_float

Reduction = Literal["mean", "min", "max", "sum"]
Series = tuple[Sequence[int | None], Sequence[Value]]


def part_of_rank(rank: int) -> str:
    """Return what the part of a rank is called."""
    return f"rank{rank}"


def part_asked(rank: int | None, part: str | None) -> str | None:
    """Return the part that a reader was asked for; ``None`` for the owner's own, as for rank 0.

    Raises:
        ValueError: both are given, or the rank is none.
    """
    if rank is None:
        return part
    if part is not None or type(rank) is not int or rank < 0:
        raise ValueError(f"give a rank from 0 on, or a part: {quoted(rank)}, {quoted(part)}")
    return part_of_rank(rank) if rank else None


def in_order(part: str) -> tuple[str, int, str]:
    """Return what sorts parts as people do: rank2 before rank10."""
    stem = part.rstrip("0123456789")
    number = part[len(stem) :]
    return stem, int(number) if number else -1, part


def reduced(series: Iterable[Series], how: str) -> tuple[list[int], list[Value]]:
    """Return the steps, sorted, and one value for each: that of all series reduced.

    Rows without a step are left out. Of several values that a series has at one step, the last
    one counts. A NaN makes the result of its step NaN.

    Args:
        series: steps and values of one metric, of each part that has it.
        how: ``mean``, ``min``, ``max`` or ``sum``.

    Raises:
        ValueError: there is no such reduction.
    """
    if how not in get_args(Reduction):
        raise ValueError(f"reduce must be one of {get_args(Reduction)}: {quoted(how)}")
    combine: Callable[[Value, Value], Value] = {"min": _lower, "max": _higher}.get(how, _added)
    # Parts mostly log at the same steps: these are combined column by column, without a dictionary.
    alike: dict[tuple[int, ...], tuple[list[Value], int]] = {}
    for some_steps, some_values in series:
        key, values = _each_once(some_steps, some_values)
        if key in alike:
            so_far, count = alike[key]
            alike[key] = list(map(combine, so_far, values)), count + 1
        else:
            alike[key] = list(values), 1
    merged: dict[int, Value] = {}
    counts: dict[int, int] = {}
    for key, (so_far, count) in alike.items():
        for step, value in zip(key, so_far, strict=True):
            merged[step] = combine(merged[step], value) if step in merged else value
            counts[step] = counts.get(step, 0) + count
    steps = sorted(merged)
    if how == "mean":
        return steps, [as_float(merged[step]) / counts[step] for step in steps]
    return steps, [merged[step] for step in steps]


def _each_once(
    steps: Sequence[int | None], values: Sequence[Value]
) -> tuple[tuple[int, ...], Sequence[Value]]:
    """Return steps and values with each step once, and none without one."""
    known = tuple(steps)
    try:
        if all(map(lt, known, islice(known, 1, None))) and (len(known) > 1 or None not in known):  # type: ignore[arg-type]
            return known, values  # type: ignore[return-value]
    except TypeError:  # some have none
        pass
    last = {step: value for step, value in zip(known, values, strict=True) if step is not None}
    return tuple(last), list(last.values())


def _added(one: Value, two: Value) -> Value:
    try:
        return one + two
    except OverflowError:  # an integer that is too large for a float
        return as_float(one) + as_float(two)


def _lower(one: Value, two: Value) -> Value:
    return one if one <= two or one != one else two


def _higher(one: Value, two: Value) -> Value:
    return one if one >= two or one != one else two
