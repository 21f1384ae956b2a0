"""What a row may hold: numbers as Python has them, read at the call or, if that may block, later.

A number of numpy's is there, and is read at the call. One of jax, or on a GPU, may still be under
computation, and whoever reads it waits. What it is decides, and not how long it takes: where its
type has `block_until_ready`, or its device is no CPU, it becomes an `Unread`, and the thread that
writes the row reads it.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from typing import Any

from keisei.errors import describe, quoted

Number = float | int | bool

EXACT = frozenset([float, int, bool])
_TIMES = frozenset("mM")  # numpy's kinds of dates and durations, which are counted in any unit
_OTHER_FLOATS = frozenset("fV")  # long doubles, and what `ml_dtypes` adds: they are no float


class Unread:
    """A number of another library that may still be under computation.

    What can be changed in place is copied where it is, which waits for nothing.

    Args:
        value: the number, of no dimension.
    """

    __slots__ = ("_ready", "_value")

    def __init__(self, value: Any) -> None:
        self._value, self._ready = _copied(value)

    def read(self) -> Number:
        """Return the number, as soon as it is there; blocks.

        Raises:
            TypeError: it is no number. What its library raises is raised as it is.
        """
        if self._ready is not None:
            self._ready()
        return _exact(_read(self._value))


def number_or_unread(
    key: str, value: object, *, of: str = "metric", allowed: str = "a number"
) -> Number | Unread:
    """Return a number as an exact float, int or bool, or as what is to be read later.

    Args:
        key: its name, for the error.
        value: the number: Python's, or a scalar of another library.
        of: what has the key, for the error.
        allowed: what may stand there, for the error.

    Raises:
        TypeError: it is no number, or cannot be read; the message names the key.
    """
    if type(value) is Unread:
        return value
    try:
        foreign = not isinstance(value, (int, float)) and _is_scalar(value)
        if foreign and _may_block(value):
            return Unread(value)
        found = _read(value) if foreign else value
    except Exception as exc:
        raise TypeError(f"{of} {quoted(key)} cannot be read: {describe(exc)}") from exc
    try:
        return _exact(found)
    except TypeError as exc:
        raise TypeError(f"{of} {quoted(key)} must be {allowed}, not {exc}") from None


def step_or_unread(step: object) -> int | Unread | None:
    """Return a step as a plain int, ``None`` or what is to be read later.

    Raises:
        TypeError: it is no whole number.
    """
    if step is None or type(step) in (int, Unread):
        found: object = step
    else:
        try:
            if not isinstance(step, (int, float)) and _is_scalar(step):
                if _may_block(step):
                    return Unread(step)
                step = _read(step)
            found = _whole(step)
        except Exception as exc:
            what = quoted(step, 80) if isinstance(step, (str, float)) else type(step).__name__
            raise TypeError(f"step must be a whole number, not {what}") from exc
    return found  # type: ignore[return-value]


def exact_step(step: object) -> int | None:
    """Return a step as a plain int; one that is still being computed is waited for.

    Raises:
        TypeError: it is no whole number.
    """
    found = step_or_unread(step)
    if isinstance(found, Unread):
        try:
            found = _whole(found.read())
        except Exception as exc:
            raise TypeError(f"step cannot be read: {describe(exc)}") from exc
    return found


def _whole(value: object) -> int:
    if isinstance(value, float):
        if not value.is_integer():
            raise TypeError("not whole")
        return int(value)
    return int(operator.index(value))  # type: ignore[arg-type]


def _exact(value: object) -> Number:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    shape = getattr(value, "shape", None)
    raise TypeError(type(value).__name__ + (f" of shape {shape}" if shape else ""))


def _is_scalar(value: Any) -> bool:
    """Return whether a value is another library's for one number."""
    dimensions = getattr(value, "ndim", None)
    if dimensions is None:
        shape = getattr(value, "shape", None)
        dimensions = len(shape) if isinstance(shape, tuple) else 0
        return dimensions == 0 and hasattr(value, "item")
    return type(dimensions) is int and dimensions == 0


def _may_block(value: Any) -> bool:
    if any(kind.__module__ == "numpy" for kind in type(value).__mro__):
        return False
    # The ranks of torch's read it together, in the order of their calls; jax's tracers never can.
    if hasattr(value, "full_tensor") or hasattr(value, "_trace"):
        return False
    if hasattr(value, "block_until_ready"):
        return True
    if getattr(value, "is_cuda", False) is True:
        return True
    device = getattr(value, "device", None)
    if device is None or callable(device):
        return False
    where = str(device).lower()
    return "cpu" not in where and "meta" not in where


def _read(value: Any) -> object:
    """Return what a scalar of another library holds; what is masked is NaN."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in _TIMES:
        return value
    mask = getattr(value, "mask", None)
    if mask is not None and not callable(mask) and bool(mask):
        return math.nan
    if hasattr(value, "item"):
        found = value.item()
    elif hasattr(value, "__array__"):
        found = value.__array__().item()
    else:
        found = float(value)
    if isinstance(found, (int, float)) or kind not in _OTHER_FLOATS:
        return found
    return float(found)


def _copied(value: Any) -> tuple[Any, Callable[[], object] | None]:
    """Return a value as it is at this moment, and what to wait for before it is read."""
    if hasattr(value, "block_until_ready"):  # it never changes
        return value, None
    if hasattr(value, "detach") and hasattr(value, "clone"):  # torch's
        copy = value.detach().clone()
        torch = sys.modules.get("torch")
        if torch is None or getattr(value, "is_cuda", False) is not True:
            return copy, None
        # Another thread has a stream of its own, which would not wait for this one.
        return copy, torch.cuda.current_stream(value.device).record_event().synchronize
    copy = value.copy() if callable(getattr(value, "copy", None)) else value
    return copy, None
