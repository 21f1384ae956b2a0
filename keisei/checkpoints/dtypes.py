"""The kinds of items that arrays have, as text: how a manifest and a safetensors file name them.

A manifest has numpy's own text for its plain kinds (``<f4``, ``>i8``, ``<M8[ns]``, ``<U5``), the
name for those of ml_dtypes (``bfloat16``), JSON for structured ones, and torch's name without
``torch.`` for torch's. Nothing but the texts that `describe` makes is read again.
"""

from __future__ import annotations

import json
import re
from typing import Any

from keisei.errors import CheckpointError, quoted

# Those of ml_dtypes, by name, and their bytes: how numpy knows the kinds that it has not itself.
EXTENDED = {
    "bfloat16": 2,
    **dict.fromkeys(["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn"], 1),
    **dict.fromkeys(["float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"], 1),
    **dict.fromkeys(["float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"], 1),
    **dict.fromkeys(["int2", "int4", "uint2", "uint4"], 1),
}
# Torch's, by name, and what numpy calls them; it has no name for one.
TORCH = {
    "bool": "|b1",
    **{f"uint{8 * size}": f"<u{size}".replace("<u1", "|u1") for size in (1, 2, 4, 8)},
    **{f"int{8 * size}": f"<i{size}".replace("<i1", "|i1") for size in (1, 2, 4, 8)},
    **{f"float{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"complex{8 * size}": f"<c{size}" for size in (8, 16)},
    "complex32": "",
    **{name: name for name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz")},
    **{name: name for name in ("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")},
}
# What safetensors can name; all else lies in the file as bytes.
_CODES = {
    **{"|b1": "BOOL", "|u1": "U8", "<u2": "U16", "<u4": "U32", "<u8": "U64"},
    **{"|i1": "I8", "<i2": "I16", "<i4": "I32", "<i8": "I64"},
    **{"<f2": "F16", "<f4": "F32", "<f8": "F64", "<c8": "C64"},
    **{"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
}
_PLAIN = re.compile(r"[<>|][biufcSUVmM][0-9]{1,9}(\[[0-9]{0,9}[A-Za-zμ]{1,7}\])?")
_DEEPEST = 16  # structures in structures


def code(dtype: str, library: str) -> str | None:
    """Return what safetensors calls a kind of items; ``None`` where it has no name for it."""
    return _CODES.get(TORCH.get(dtype, "") if library == "torch" else dtype)


def describe(dtype: Any) -> str | None:
    """Return the text of a dtype of numpy; ``None`` where its items cannot be kept.

    Those are objects, items of no bytes, and kinds that only a library of their own knows.
    """
    if dtype.hasobject or not dtype.itemsize:
        return None
    described = _described(dtype, 0)
    if described is None or isinstance(described, str):
        return described
    return json.dumps(described, separators=(",", ":"))


def _described(dtype: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return None
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        inner = _described(base, depth + 1)
        return inner and [inner, list(shape)]
    if dtype.names is None:
        if dtype.type.__module__ != "numpy":
            return dtype.name if dtype.name in EXTENDED and dtype.isnative else None
        return dtype.str if _PLAIN.fullmatch(dtype.str) else None
    fields = [dtype.fields[name] for name in dtype.names]
    formats = [_described(field[0], depth + 1) for field in fields]
    if None in formats or any(len(field) > 2 for field in fields):  # titles are names, too
        return None
    return {
        "align": dtype.isalignedstruct,
        "formats": formats,
        "itemsize": dtype.itemsize,
        "names": list(dtype.names),
        "offsets": [field[1] for field in fields],
    }


def numpy_dtype(numpy: Any, text: str) -> Any:
    """Return the dtype of numpy that a text of `describe` stands for.

    Args:
        numpy: the module; ml_dtypes has to be imported where the text is one of its names.
        text: the text, which may be anybody's.

    Raises:
        CheckpointError: it is no such text (``corrupt`` is set).
    """
    try:
        made = _made(numpy, json.loads(text) if text.startswith("{") else text, 0)
        if describe(made) == text:
            return made
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, MemoryError):
        pass
    raise CheckpointError(
        f"the checkpoint does not verify: there is no kind of items {quoted(text)}", corrupt=True
    )


def _made(numpy: Any, described: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(described, str):
        if described not in EXTENDED and not _PLAIN.fullmatch(described):
            raise ValueError("no kind of items")
        return numpy.dtype(described)
    if isinstance(described, list):
        inner, shape = described
        return numpy.dtype((_made(numpy, inner, depth + 1), tuple(shape)))
    fields = {key: described[key] for key in ("names", "offsets", "itemsize")}
    formats = [_made(numpy, part, depth + 1) for part in described["formats"]]
    return numpy.dtype(fields | {"formats": formats}, align=described["align"])
