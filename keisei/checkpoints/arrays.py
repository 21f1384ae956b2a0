"""Arrays of numpy, torch and jax as bytes, and back: only where the program has imported them."""

from __future__ import annotations

import importlib
import math
import sys
from functools import lru_cache
from typing import Any, NamedTuple

from keisei.checkpoints.dtypes import EXTENDED, TORCH, describe, numpy_dtype
from keisei.checkpoints.manifest import ArrayEntry, Library
from keisei.checkpoints.refusals import Refused, why_not
from keisei.errors import CheckpointError, MissingExtraError, quoted
from keisei.errors import describe as describe_error


class Held(NamedTuple):
    """An array that is to be saved.

    Attributes:
        dtype: the kind of its items, as text (see `dtypes`).
        shape: its length in each dimension.
        library: ``numpy``, ``torch``, ``jax``, ``bytes`` or ``bytearray``.
        item_size: the bytes of an item.
        source: the array, or a copy of it in the host's memory.
        stable: whether nobody but keisei can change `source`.
    """

    dtype: str
    shape: tuple[int, ...]
    library: Library
    item_size: int
    source: Any
    stable: bool

    @property
    def nbytes(self) -> int:
        """The bytes of all its items."""
        return math.prod(self.shape) * self.item_size


def hold(value: object, *, copy: bool) -> Held | None:
    """Return an array as it is to be saved; ``None`` where the value is no array.

    Args:
        value: anything.
        copy: whether the program may change the array as soon as this returns.

    Raises:
        Refused: it is an array that cannot be kept.
    """
    try:
        if (numpy := _imported("numpy", "ndarray")) and isinstance(value, numpy.ndarray):
            return _hold_numpy(numpy, value, copy)
        if (torch := _imported("torch", "Tensor")) and isinstance(value, torch.Tensor):
            return _hold_torch(torch, value, copy)
        if (jax := _imported("jax", "Array")) and isinstance(value, jax.Array):
            return _hold_jax(value, copy)
    except (RuntimeError, TypeError, NotImplementedError) as exc:  # what its library says of it
        raise Refused(f"{why_not(value)} ({describe_error(exc)})") from exc
    if type(value) is bytes:
        return Held("bytes", (len(value),), "bytes", 1, value, True)
    if type(value) is bytearray:
        data = bytes(value) if copy else value
        return Held("bytearray", (len(value),), "bytearray", 1, data, copy)
    return None


def _imported(module: str, name: str) -> Any:
    """Return a module if the program has imported it, at least as far as a name in it."""
    found = sys.modules.get(module)
    return found if hasattr(found, name) else None


def _hold_numpy(numpy: Any, value: Any, copy: bool) -> Held:
    if type(value) is not numpy.ndarray and not isinstance(value, numpy.memmap):
        raise Refused(why_not(value))
    if (dtype := _kind_of(value.dtype)) is None:
        raise Refused(
            f"an array of {quoted(str(value.dtype))}: save value.tolist(), or an array of numbers"
        )
    source = _copied(numpy, value) if copy else value
    return Held(dtype, value.shape, "numpy", value.dtype.itemsize, source, copy)


def _copied(numpy: Any, value: Any) -> Any:
    """Return a copy of an array, in the order of its indices.

    What lies between the fields of a structure is nothing of the program's, and differs from copy
    to copy: equal arrays have equal bytes only without it.
    """
    if not _has_gaps(value.dtype):
        return numpy.array(value, order="C", copy=True, subok=False)
    copied = numpy.zeros(value.shape, value.dtype)
    copied[...] = value
    return copied


@lru_cache(maxsize=256)
def _has_gaps(dtype: Any) -> bool:
    """Return whether not every byte of an item belongs to one of its fields."""
    if dtype.base.names is None:
        return False
    fields = [field[0] for field in dtype.base.fields.values()]
    return sum(each.itemsize for each in fields) != dtype.base.itemsize or any(
        map(_has_gaps, fields)
    )


@lru_cache(maxsize=256)
def _kind_of(dtype: Any) -> str | None:
    return describe(dtype)


def _hold_torch(torch: Any, value: Any, copy: bool) -> Held:
    dtype = str(value.dtype).removeprefix("torch.")
    plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout is torch.strided
    if not plain:
        raise Refused(f"{why_not(value)} (a plain tensor can be kept)")
    if dtype not in TORCH:
        raise Refused(f"a tensor of {quoted(dtype)}: save it as another kind, with value.to()")
    if value.is_meta or _is_freed(value):
        raise Refused("a tensor whose memory was freed, or that never had any: leave it out")
    if _imported("numpy", "ndarray") is None:
        raise MissingExtraError(
            "tensors are saved by way of numpy, which torch has not found: "
            "pip install 'keisei[checkpoints]'"
        )
    source = value.detach()
    if copy:
        source = source.resolve_conj().resolve_neg()
        source = source.to("cpu", copy=True, memory_format=torch.contiguous_format)
    return Held(dtype, tuple(value.shape), "torch", value.element_size(), source, copy)


def _is_freed(tensor: Any) -> bool:
    return bool(tensor.numel() and not tensor.untyped_storage().nbytes())


def _hold_jax(value: Any, copy: bool) -> Held:
    numpy = _imported("numpy", "ndarray")
    try:
        host = numpy.asarray(value)
    except Exception as exc:
        raise Refused(
            f"an array of jax that has no value in this process ({describe_error(exc)}): save "
            "jax.random.key_data(key) for a key, and outside of transformed functions"
        ) from exc
    held = _hold_numpy(numpy, host, copy)
    return held._replace(library="jax", stable=True)  # jax's arrays do not change


def host_bytes(held: Held) -> memoryview:
    """Return the bytes of an array, in the order of its indices; it may copy it to the host.

    Raises:
        Exception: whatever its library raises where it is no longer there.
    """
    if not held.nbytes:
        return memoryview(b"")
    if held.library in ("bytes", "bytearray"):
        return memoryview(held.source)
    if held.library == "torch":
        torch = sys.modules["torch"]
        if _is_freed(held.source):
            raise ValueError("its memory was freed")
        tensor = held.source.resolve_conj().resolve_neg().cpu().contiguous()
        return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
    numpy, source = sys.modules["numpy"], held.source
    if not held.stable and _has_gaps(source.dtype):
        source = _copied(numpy, source)
    return memoryview(numpy.ascontiguousarray(source).reshape(-1).view(numpy.uint8))


def scalar_json(value: object) -> dict[str, str] | None:
    """Return a scalar of numpy as JSON; ``None`` where the value is none.

    Raises:
        Refused: it is one that cannot be kept.
    """
    numpy = _imported("numpy", "generic")
    if numpy is None or not isinstance(value, numpy.generic):
        return None
    if isinstance(value, numpy.str_):
        return _scalar("str", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, numpy.bytes_):
        return _scalar("bytes", bytes(value))
    if (dtype := _kind_of(value.dtype)) is None:
        raise Refused(why_not(value))
    return _scalar(dtype, _copied(numpy, numpy.asarray(value)).tobytes())


def _scalar(dtype: str, data: bytes) -> dict[str, str]:
    return {"$": "scalar", "dtype": dtype, "v": data.hex()}


def scalar_of(node: dict[str, Any]) -> object:
    """Return the scalar that an object of `scalar_json` stands for.

    Args:
        node: the object, which may be anybody's; whatever is wrong with it is a `ValueError`, a
            `KeyError` or a `TypeError`.

    Raises:
        CheckpointError: there is no such kind of scalar (``corrupt`` is set).
        MissingExtraError: a library is missing that knows the kind.
    """
    numpy = numpy_for("scalars of numpy")
    dtype, data = node["dtype"], bytes.fromhex(node["v"])
    if dtype == "str":
        return numpy.str_(data.decode("utf-8", "surrogatepass"))
    if dtype == "bytes":
        return numpy.bytes_(data)
    kind = _numpy_kind(dtype)
    if len(data) != kind.itemsize:
        raise ValueError("a scalar of another length")
    return numpy.frombuffer(bytearray(data), kind)[0]


@lru_cache(maxsize=256)
def item_size(dtype: str, library: Library) -> int:
    """Return the bytes of an item of an array in a manifest, which may be anybody's.

    Raises:
        CheckpointError: there is no such kind of items (``corrupt`` is set).
        MissingExtraError: a library is missing that knows the kind.
    """
    if library == "torch":
        if dtype in TORCH:
            known = TORCH[dtype]
            return EXTENDED.get(known) or (int(known[2:]) if known else 4)
    elif library in ("bytes", "bytearray"):
        if dtype == library:
            return 1
    elif dtype in EXTENDED:
        return EXTENDED[dtype]
    else:
        return int(_numpy_kind(dtype).itemsize)
    raise CheckpointError(
        f"the checkpoint does not verify: there is no kind of items {quoted(dtype)}", corrupt=True
    )


def array_of(entry: ArrayEntry, data: bytearray | Any) -> object:
    """Return an array from its bytes, of the library that it was of, where that is imported.

    A tensor is on the CPU and needs no gradient. Where its library is not imported, and where
    jax's settings have no such items, it is an array of numpy.

    Args:
        entry: what the manifest says of it.
        data: its bytes, as an array of numpy (see `empty_bytes`); the result may share them.

    Raises:
        CheckpointError: the bytes do not fit the shape (``corrupt`` is set).
        MissingExtraError: a library is missing that knows the kind.
    """
    if entry.library == "bytes":
        return bytes(data)
    if entry.library == "bytearray":
        return bytearray(data)
    try:
        if entry.library == "torch" and (torch := _imported("torch", "Tensor")):
            return _tensor_of(torch, entry, data)
        host = _numpy_of(entry, data)
    except (ValueError, TypeError, RuntimeError, OverflowError) as exc:
        raise CheckpointError(
            f"the checkpoint does not verify: array {quoted(entry.name)} does not fit its shape "
            f"({describe_error(exc)})",
            corrupt=True,
        ) from None
    if entry.library == "jax" and (jax := _imported("jax", "Array")):
        kept = jax.dtypes.canonicalize_dtype(host.dtype) == host.dtype
        return jax.numpy.asarray(host) if kept else host
    return host


def _tensor_of(torch: Any, entry: ArrayEntry, data: Any) -> object:
    if (dtype := getattr(torch, entry.dtype, None)) is None:
        raise MissingExtraError(
            f"this torch knows no items of {quoted(entry.dtype)}, which the checkpoint has: "
            "upgrade torch"
        )
    if not len(data):
        return torch.empty(entry.shape, dtype=dtype)
    return torch.from_numpy(data).view(dtype).reshape(entry.shape)


def _numpy_of(entry: ArrayEntry, data: Any) -> Any:
    dtype = TORCH[entry.dtype] if entry.library == "torch" else entry.dtype
    if not dtype:
        raise MissingExtraError(
            f"numpy knows no items of {quoted(entry.dtype)}: import torch before the restore"
        )
    return numpy_for("arrays").ndarray(entry.shape, _numpy_kind(dtype), data)


@lru_cache(maxsize=256)
def _numpy_kind(dtype: str) -> Any:
    numpy = numpy_for("arrays")
    if any(name in dtype for name in EXTENDED):
        try:
            importlib.import_module("ml_dtypes")
        except ImportError as exc:
            raise MissingExtraError(
                f"the checkpoint has items of {quoted(dtype)}, which numpy knows by another "
                "package: pip install ml_dtypes, or import torch before the restore of tensors"
            ) from exc
    return numpy_dtype(numpy, dtype)


def numpy_for(what: str) -> Any:
    """Return numpy; it may import it, so not on a loop.

    Args:
        what: what needs it, for the error.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("numpy")
    except ImportError as exc:
        raise MissingExtraError(
            f"{what} are read by numpy, which is not installed: pip install 'keisei[checkpoints]'"
        ) from exc
