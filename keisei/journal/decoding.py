"""How the bytes of a journal become records again: blocks found among damage, rows unpacked."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from keisei.journal.format import HEAD_SIZE, PREFIX, block_size, read_block

CHUNK = 1 << 22

# The time, one value per key, and the step.
RawRow = tuple[float | int | bool | None, ...]

_SIZES = {b"g": 9, b"i": 5, b"T": 1, b"F": 1, b"N": 1}
_FORMATS = {b"g": "xd", b"i": "xi", b"T": "B", b"F": "B", b"N": "x"}
_FIXED = {b"T": True, b"F": False, b"N": None}
_TRUE = ord("T")
_U32, _I32, _F64 = struct.Struct("<I"), struct.Struct("<i"), struct.Struct("<d")
_HEAD = struct.Struct("<Ixi")  # how many values, and the first: the shape's id
_ROW_HEAD = _HEAD.size


class Block(NamedTuple):
    """A block whose checksum is right."""

    marker: bytes
    seq: int
    records: int
    payload: bytes


class Batch(NamedTuple):
    """Records of one kind that follow each other: rows of one shape, or events (no shape)."""

    shape: int | None
    seq: int
    rows: list[RawRow]
    events: list[tuple[float, str, object]]


class Scanner:
    """Finds the blocks of a file that may grow, be torn at its end, or be damaged anywhere.

    Args:
        read: returns the bytes from an offset, at most so many.

    Attributes:
        position: the end of the last good block.
        skipped: how many stretches between good blocks were unreadable.
        skipped_bytes: the bytes in them.
        torn_bytes: the bytes after the last good block: torn, or not all there yet.
    """

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        self.position = 0
        self.skipped = self.skipped_bytes = self.torn_bytes = 0
        self._read = read

    def blocks(self) -> Iterator[Block]:
        """Yield the good blocks from the position on, to the present end of the file."""
        data, start, pos = b"", 0, 0  # the last good block ends at start; pos looks for the next
        ended = False
        while True:
            size = block_size(data, pos) if pos + HEAD_SIZE <= len(data) else HEAD_SIZE
            if size is not None and pos + size > len(data) and not ended:
                end = self.position + len(data) - start
                more = self._read(end, max(CHUNK, pos + size - len(data)))
                data, pos, start = data[start:] + more, pos - start, 0
                ended = not more
                continue
            fits = size is not None and pos + size <= len(data)
            found = read_block(data, pos, size) if size is not None and fits else None
            if found is not None and size is not None:
                self.skipped += pos > start
                self.skipped_bytes += pos - start
                self.position += pos + size - start
                start = pos = pos + size
                yield Block(*found)
                continue
            pos_of_next = data.find(PREFIX, pos + 1)
            if pos_of_next < 0 and ended:
                self.torn_bytes = len(data) - start
                return
            pos = pos_of_next if pos_of_next >= 0 else max(pos + 1, len(data) - len(PREFIX) + 1)


def unpack_records(block: Block, *, events: bool = True) -> list[Batch]:
    """Return the records of a block.

    Args:
        block: the block.
        events: whether to decode its events, which are left out else.

    Raises:
        ValueError: it holds what this version does not know.
    """
    try:
        alike = _unpack_alike(block) if block.payload[4:5] == b"i" else None
        return [alike] if alike is not None else list(_unpack_each(block, events))
    except (struct.error, IndexError, KeyError, TypeError, RecursionError) as exc:
        raise ValueError(f"not a journal's record: {exc}") from exc


def _unpack_alike(block: Block) -> Batch | None:
    """Unpack all rows at once, if they have the same shape and the same types.

    The first row says where the tags are. If every other row has the same tags at these offsets,
    then by induction these are tags, and the rows are alike.
    """
    payload, count = block.payload, block.records
    size = len(payload) // count
    if size * count != len(payload):
        return None
    form = f"<{_ROW_HEAD}x"
    flags: list[int] = []
    tags: list[bytes] = []
    pos = _ROW_HEAD
    while pos < size:
        tag = payload[pos : pos + 1]
        if tag not in _SIZES:
            return None
        if tag in b"TF":
            flags.append(len(tags))
        form += _FORMATS[tag]
        tags.append(tag)
        column = payload[pos::size]
        if column.strip(b"TF") if tag in b"TF" else column != tag * count:
            return None
        pos += _SIZES[tag]
    for at in range(_ROW_HEAD):
        if payload[at::size] != payload[at : at + 1] * count:
            return None
    values, shape = _HEAD.unpack_from(payload)
    if pos != size or values != len(tags) + 1 or b"N" in tags[:-1]:
        return None
    rows: list[RawRow] = list(struct.iter_unpack(form, payload))
    if flags:
        rows = [tuple(v == _TRUE if i in flags else v for i, v in enumerate(row)) for row in rows]
    if tags[-1] == b"N":
        rows = [(*row, None) for row in rows]
    return Batch(shape, block.seq, rows, [])


def _unpack_each(block: Block, events: bool) -> Iterator[Batch]:
    payload, pos = block.payload, 0
    batch: Batch | None = None
    for seq in range(block.seq, block.seq + block.records):
        (count,) = _U32.unpack_from(payload, pos)
        pos += 4
        shape: int | None = None
        row: list[float | int | bool | None] = []
        if count:
            for _ in range(count):
                value, pos = _value(payload, pos)
                row.append(value)
            shape = cast(int, row.pop(0))
        if batch is None or batch.shape != shape:
            if batch is not None:
                yield batch
            batch = Batch(shape, seq, [], [])
        if count:
            batch.rows.append(tuple(row))
        else:
            (length,) = _U32.unpack_from(payload, pos)
            pos += 4 + length
            if events:
                time, name, data = json.loads(payload[pos - length : pos])
                batch.events.append((time, name, data))
    if batch is not None:
        yield batch


def _value(payload: bytes, pos: int) -> tuple[float | int | bool | None, int]:
    tag = payload[pos : pos + 1]
    if tag == b"g":
        return _F64.unpack_from(payload, pos + 1)[0], pos + 9
    if tag == b"i":
        return _I32.unpack_from(payload, pos + 1)[0], pos + 5
    if tag in _FIXED:
        return _FIXED[tag], pos + 1
    if tag != b"l":
        raise ValueError(f"no value begins with {tag!r}")
    (count,) = _I32.unpack_from(payload, pos + 1)
    digits = struct.unpack_from(f"<{abs(count)}H", payload, pos + 5)
    number = int("".join(f"{digit:015b}" for digit in reversed(digits)) or "0", 2)
    return (-number if count < 0 else number), pos + 5 + 2 * len(digits)
