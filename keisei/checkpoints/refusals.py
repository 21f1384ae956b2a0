"""Why a value cannot be kept in a checkpoint, and what can be kept instead of it."""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Iterator, Set

from keisei.errors import quoted


class Refused(ValueError):
    """A value cannot be kept in a checkpoint; the message says why, and the way out."""


def why_not(value: object) -> str:
    """Return what a value is that no checkpoint can keep, and the way out, as part of a message.

    Args:
        value: anything; nothing of it is called.
    """
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return f"{_described(value, name)}: {_way_out(value, kind, name)}"


def _described(value: object, name: str) -> str:
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"a function ({quoted(getattr(value, '__qualname__', name))[1:-1]})"
    if isinstance(value, type):
        return f"a class ({quoted(value.__qualname__)[1:-1]})"
    return f"a value of type {quoted(name)[1:-1]}"


def _way_out(value: object, kind: type, name: str) -> str:
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType | type):
        return "leave it out, and make it again from the program"
    if isinstance(value, enum.Enum):
        return "save its .name or its .value"
    if isinstance(value, tuple):
        if hasattr(kind, "_fields"):
            return (
                "a named tuple would come back as another type; save value._asdict(), or the "
                "leaves of the whole tree (jax.tree.flatten for optax's states)"
            )
        return "save tuple(value)"
    if isinstance(value, bool | int | float | complex | str | bytes | bytearray | list):
        plain = next(base for base in kind.__mro__ if base.__module__ == "builtins")
        return f"save {plain.__name__}(value)"
    if isinstance(value, Set):
        return "save sorted(value), since a set has no order"
    if dataclasses.is_dataclass(kind):
        return "save dataclasses.asdict(value)"
    if isinstance(value, Iterator):
        return "save what it was made from, and how far it has come"
    if isinstance(value, memoryview):
        return "save bytes(value)"
    if hasattr(kind, "__fspath__"):
        return "save str(value)"
    if hasattr(kind, "isoformat"):
        return "save value.isoformat()"
    if hasattr(kind, "bit_generator"):
        return "save value.bit_generator.state"
    if hasattr(kind, "state_dict"):
        return "save value.state_dict()"
    if hasattr(kind, "getstate"):
        return "save value.getstate()"
    if hasattr(kind, "get_state"):
        return "save value.get_state()"
    if hasattr(kind, "model_dump"):
        return "save value.model_dump()"
    if name in ("numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"):  # before numpy 2
        return "save value.data and value.mask"
    if name == "torch.Tensor":
        return "save value.to_dense(), or the plain tensors that it is made of"
    if hasattr(kind, "__array__") or hasattr(kind, "__dlpack__"):
        return "save numpy.asarray(value)"
    if name.startswith(("torch.", "jax.", "numpy.", "decimal.", "fractions.", "uuid.")):
        return "save str(value)"
    return (
        "a checkpoint keeps numbers, strings, bytes, None, lists, tuples, mappings, and arrays of "
        "numpy, torch and jax; leave it out, save its parts, or give save_checkpoint a function "
        "that writes files"
    )
