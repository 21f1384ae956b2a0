"""Arrays as they are given: a copy of the caller's numbers, checked at the call."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from keisei.errors import MediaError, describe

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def is_array(value: object) -> bool:
    """Return whether a value is an array of numpy's, or makes one: of torch, of jax."""
    return hasattr(value, "__array__") and hasattr(value, "shape")


def copied(argument: str, value: object) -> Array:
    """Return a copy of an array, with its elements in one piece.

    Args:
        argument: how the caller knows it, for the message.
        value: an array of numpy's, or what makes one, or sequences of numbers or of arrays.

    Raises:
        MediaError: it makes no array of numbers.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise MediaError(f"{argument}: {type(value).__name__} is no array of numpy's, nor a path")
    try:
        array: Array = numpy.array(value, order="C", copy=True)
    except Exception as exc:
        raise MediaError(
            f"{argument}: no array of numpy's can be made of {type(value).__name__}: "
            f"{describe(exc)}. A tensor becomes one by tensor.detach().cpu().numpy()"
        ) from exc
    if array.dtype.kind not in "buif":
        raise MediaError(f"{argument}: holds {array.dtype}, and no numbers")
    return array


def check_pixels(argument: str, array: Array) -> None:
    """Check that an array's elements are pixels: bytes, flags, or floats from 0 to 1.

    Raises:
        MediaError: they are not; a NaN is none.
    """
    kind = array.dtype.kind
    if array.dtype.name in ("uint8", "bool") or not array.size:
        return
    if kind != "f":
        raise MediaError(
            f"{argument}: holds {array.dtype}: pixels are uint8, or floats from 0 to 1 (for "
            "numbers from 0 to 255, use array.astype('uint8'))"
        )
    low, high = float(array.min()), float(array.max())  # NaN where one is NaN
    if not (low >= 0.0 and high <= 1.0):
        raise MediaError(
            f"{argument}: holds floats from {low:g} to {high:g}: pixels are floats from 0 to 1, "
            "none of them NaN, or uint8 (use array.clip(0, 1), or numpy.nan_to_num)"
        )


def as_bytes(array: Array) -> Array:
    """Return checked pixels as bytes from 0 to 255."""
    if array.dtype.kind == "b":
        return -array.view("uint8")  # 1 becomes 255
    if array.dtype.kind == "f":
        return (array.astype("float32") * 255.0 + 0.5).astype("uint8")
    return array
