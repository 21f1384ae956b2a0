"""The safetensors file: eight bytes of length, a header of JSON, the arrays one after another.

It is written and read here, and not by the library of that name, which holds the GIL while it
copies an array to or from Python: for as long as an event loop beside it stands still. Any program
reads the file by that library. The header is wholly told by the manifest's list of arrays, so that
nothing in it has to be believed: another one is a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as _text

from keisei.checkpoints.arrays import Held, array_of, host_bytes, item_size, numpy_for
from keisei.checkpoints.dtypes import code
from keisei.checkpoints.manifest import ArrayEntry
from keisei.checkpoints.streams import Sink, Source
from keisei.errors import CheckpointError, describe, quoted

_LONGEST_HEADER = 100_000_000  # bytes; the library reads no longer one


def file_order(item_sizes: Sequence[int]) -> list[int]:
    """Return the order in which arrays follow each other, so that each begins at its alignment.

    Args:
        item_sizes: the bytes of an item of each array.
    """
    return sorted(range(len(item_sizes)), key=lambda i: -(item_sizes[i] & -item_sizes[i]))


def header(entries: Sequence[ArrayEntry], sizes: Sequence[int]) -> bytes:
    """Return all bytes of the file before the first array's.

    Args:
        entries: the arrays, in the order of the file.
        sizes: the bytes of each.

    Raises:
        CheckpointError: there are more than the format can list.
    """
    parts, start = [], 0
    for entry, size in zip(entries, sizes, strict=True):
        known = code(entry.dtype, entry.library)
        shape = entry.shape if known else (size,)  # without a name there: as bytes
        parts.append(
            f'{_text(entry.name)}:{{"dtype":"{known or "U8"}",'
            f'"shape":[{",".join(map(str, shape))}],"data_offsets":[{start},{start + size}]}}'
        )
        start += size
    text = "{" + ",".join(parts) + "}"
    text += " " * (-len(text) % 8)
    if len(text) > _LONGEST_HEADER:
        raise CheckpointError(
            f"the state has {len(parts):,} arrays, too many for one file: join small ones"
        )
    return len(text).to_bytes(8, "little") + text.encode("ascii")


def write(sink: Sink, held: Sequence[tuple[str, Held]]) -> list[ArrayEntry]:
    """Write arrays, and return what they are, in the order of the file.

    Raises:
        CheckpointError: an array is no longer there.
        OSError: the file cannot be written.
    """
    ordered = [held[i] for i in file_order([array.item_size for _, array in held])]
    entries = [ArrayEntry(name, array.dtype, array.shape, array.library) for name, array in ordered]
    sink.add(memoryview(header(entries, [array.nbytes for _, array in ordered])), stable=True)
    for name, array in ordered:
        try:
            data = host_bytes(array)
        except Exception as exc:
            raise CheckpointError(
                f"array {quoted(name)} can no longer be read ({describe(exc)}): keep it until the "
                "save is over, or save with copy=True"
            ) from exc
        sink.add(data, stable=array.stable)
    return entries


def read(source: Source, entries: Sequence[ArrayEntry], size: int) -> dict[str, object]:
    """Read and verify arrays, each into memory of its own.

    Args:
        source: the file, at its start.
        entries: the arrays, in the order of the file, as the manifest has them.
        size: the bytes of the file.

    Raises:
        CheckpointError: the file is not what the manifest says (``corrupt`` is set), or there is
            no memory for its arrays.
        MissingExtraError: a library is missing that knows an array's kind.
    """
    sizes = [math.prod(entry.shape) * item_size(entry.dtype, entry.library) for entry in entries]
    expected = header(entries, sizes)
    if len(expected) + sum(sizes) != size:  # before any of them is given memory
        raise source.corrupt("has another length than its arrays")
    found = bytearray(len(expected))
    source.read(memoryview(found))
    if found != expected:
        raise source.corrupt("has another header than its arrays")
    numpy = numpy_for("arrays")
    arrays: dict[str, object] = {}
    for entry, count in zip(entries, sizes, strict=True):
        try:
            data = numpy.empty(count, numpy.uint8)
        except MemoryError:
            raise CheckpointError(
                f"there is no memory for the {count:,} bytes of array {quoted(entry.name)}"
            ) from None
        source.read(memoryview(data))
        arrays[entry.name] = array_of(entry, data)
    return arrays
