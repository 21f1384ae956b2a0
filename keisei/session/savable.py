"""What a program may hand over to be saved, and under which step."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from keisei.checkpoints import policy
from keisei.checkpoints.manifest import LONGEST_NAME
from keisei.errors import quoted
from keisei.journal.format import flatten
from keisei.journal.values import Number, Unread, exact_step

Values = Mapping[Any, Any]
Writer = Callable[[Path], object]
State = Values | Writer
AutoState = Values | Callable[[], Values] | Writer

_WAYS_OUT = (
    "a mapping of names to arrays, numbers and texts, or a function with one parameter, a "
    "directory, that writes files into it"
)


def is_values(state: object) -> TypeGuard[Values]:
    """Return whether a state is a mapping."""
    return isinstance(state, Mapping)


def is_writer(state: object) -> TypeGuard[Writer]:
    """Return whether a state is a function that writes files.

    Raises:
        TypeError: it is a function that cannot be called so.
    """
    return not is_values(state) and callable(state) and _needed(state) == 1


def check_state(state: object) -> None:
    """Check that a state is a mapping, or a function that writes files.

    Raises:
        TypeError: it is neither.
    """
    if not is_values(state) and not is_writer(state):
        hint = ". Call it, and give what it returns" if callable(state) else ""
        raise TypeError(f"state must be {_WAYS_OUT}, not {_shown(state)}{hint}")


def check_auto_state(state: object) -> None:
    """Check that a state may be saved by itself: as above, or a function that returns a mapping.

    Raises:
        TypeError: it is none of them.
    """
    if not is_values(state) and not (callable(state) and _needed(state) <= 1):
        raise TypeError(
            f"state must be {_WAYS_OUT}, or a function without parameters that returns such a "
            f"mapping, not {_shown(state)}"
        )


def taken_now(state: AutoState | None, *, may_be_none: bool = False) -> State | None:
    """Return what is saved by itself now: what a function returns, where it is one that does.

    Args:
        state: what is saved by itself.
        may_be_none: whether this may be nothing, as on a rank above 0.

    Raises:
        TypeError: it returns no mapping. What it raises is raised as it is.
    """
    if state is None or isinstance(state, Mapping) or is_writer(state):
        return state
    found: object = state()  # type: ignore[call-arg]
    if found is None and may_be_none:
        return None
    if not is_values(found):
        raise TypeError(f"{_shown(state)} must return a mapping, not {_shown(found)}")
    return found


def whole_step(step: object, name: str = "step") -> int:
    """Return a step, or a rank, as a plain int.

    Args:
        step: the step.
        name: what it is, for the message.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is negative, or has more than 64 bits.
    """
    found = exact_step(step)
    if found is None:
        raise TypeError(f"{name} must be a whole number, not None")
    if not 0 <= found < policy.NEVER:
        raise ValueError(f"{name} must be 0 or more, and below 2**63: {quoted(found)}")
    return found


def checked_which(which: object) -> str | int | os.PathLike[str]:
    """Return which checkpoint is asked for: a name or a path as it is, a step as a plain int.

    Raises:
        TypeError: it is none of them.
        ValueError: the step is negative, or has more than 64 bits.
    """
    if isinstance(which, str | os.PathLike):
        return which
    try:
        return whole_step(which)
    except TypeError:
        raise TypeError(
            f"which must be 'latest', 'best', a step, or a checkpoint's path, not {quoted(which)}"
        ) from None


def flat_metrics(metrics: object) -> dict[str, Number | Unread]:
    """Return the metrics that a checkpoint is saved with, nested names joined.

    Raises:
        TypeError: they are no mapping of names to numbers.
        ValueError: a name is too long, or no text.
    """
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a mapping, not {type(metrics).__name__}")
    flat = flatten(metrics or {})
    for name in flat:
        if len(name) > LONGEST_NAME or not _is_text(name):
            raise ValueError(
                f"a metric's name must be a text of at most {LONGEST_NAME:,} characters: "
                f"{quoted(name, 60)}"
            )
    return flat


def _needed(func: Callable[..., object]) -> int:
    """Return how many arguments a function has to be given.

    Raises:
        TypeError: it is asynchronous, or does not say what it takes.
    """
    # Its `__call__` is looked at, and not whether it has one.
    if any(map(inspect.iscoroutinefunction, (func, getattr(func, "__call__", None)))):  # noqa: B004
        raise TypeError(
            f"the state function {quoted(func)} is asynchronous: await what it needs before, and "
            "give a mapping or a plain function"
        )
    try:
        parameters = inspect.signature(func).parameters.values()
    except ValueError as exc:
        problem = (
            f"the state function {quoted(func)} does not say what it takes: wrap it in a lambda"
        )
        raise TypeError(problem) from exc
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in kinds and each.default is each.empty for each in parameters)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(state: object) -> str:
    return quoted(state) if callable(state) else type(state).__name__
