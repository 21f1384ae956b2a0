"""How the bytes of a journal become records again: blocks found among damage, rows unpacked."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from keisei.journal.format import (
    ANY_BLOCK,
    HEAD_SIZE,
    MARKER_SIZE,
    RECORDS,
    Record,
    block_size,
    check_times,
    read_block,
    unpack_event,
)

CHUNK = 1 << 22

# The time, one value per key, and the step.
RawRow = tuple[float | int | bool | None, ...]

# The id of a row's names, and how many there are.
Shape = tuple[int, int]

_MOST_CHECKED = 1 << 28  # bytes of what only looks like blocks, and four times what is read
_STEPS = frozenset([int, type(None)])
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
    """Records of one kind that follow each other: rows of one shape, or events (no shape).

    Attributes:
        shape: the id of the rows' shape, and how many values each has.
        seq: the number of the first one.
        rows: the rows.
        events: time, name and data of the events.
    """

    shape: Shape | None
    seq: int
    rows: list[RawRow]
    events: list[tuple[float, str, object]]


class Scanner:
    """Finds the blocks of a file that may grow, be torn at its end, or be damaged anywhere.

    It holds no more of the file than one block may take, and the time that it takes is bounded by
    the file's size, whatever the file holds: what looks like large blocks and is none is checked
    only as far as that.

    Args:
        read: returns the bytes from an offset, at most so many.
        start: the offset to begin at.
        sought: how the wanted blocks begin.

    Attributes:
        position: the end of the last good block.
        skipped: how many stretches between good blocks were unreadable.
        skipped_bytes: the bytes in them.
        torn_bytes: the bytes after the last good block: torn, or not all there yet.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        start: int = 0,
        sought: re.Pattern[bytes] = ANY_BLOCK,
    ) -> None:
        self.position = self._next = start
        self.skipped = self.skipped_bytes = self.torn_bytes = 0
        self._read, self._sought = read, sought
        self._checks_left = _MOST_CHECKED  # bytes

    def blocks(self) -> Iterator[Block]:
        """Yield the good blocks that come next, to the present end of the file."""
        data, begin, at, ended = b"", self._next, 0, False
        unfinished: int | None = None  # where a block begins that may not be all there yet
        while True:
            found = self._sought.search(data, at)
            at = found.start() if found else max(at, len(data) - MARKER_SIZE + 1)
            known = at + HEAD_SIZE <= len(data)
            size = block_size(data, at) if known else HEAD_SIZE
            if size is not None and at + size > len(data):
                if not ended:
                    more = self._read(begin + len(data), max(CHUNK, at + size - len(data)))
                    data, begin, at, ended = data[at:] + more, begin + at, 0, not more
                    self._checks_left += 4 * len(more)
                    continue
                if unfinished is None:
                    unfinished = begin + at
                size = None
                if not found:
                    break
            block = None
            if size is not None and size <= self._checks_left:
                block = read_block(data, at, size)
                self._checks_left -= size if block is None else 0
            if block is None or size is None:
                at += 1
                continue
            self.skipped += begin + at > self.position
            self.skipped_bytes += begin + at - self.position
            self.position = self._next = begin + at + size
            at, unfinished = at + size, None
            yield Block(*block)
        self._next = unfinished
        self.torn_bytes = begin + len(data) - self.position


def unpack_records(block: Block, *, events: bool = True) -> list[Batch]:
    """Return the records of a block.

    Args:
        block: the block.
        events: whether to decode its events, which are left out else.

    Raises:
        ValueError: it holds what no journal does, or what this version does not know.
    """
    try:
        alike = _unpack_alike(block) if block.payload[4:5] == b"i" else None
        return [alike] if alike is not None else list(_unpack_each(block, events))
    except (struct.error, IndexError, KeyError, TypeError, RecursionError) as exc:
        raise ValueError(f"not a journal's record: {exc}") from exc


def point_in(records: Iterable[Record]) -> tuple[float, int] | None:
    """Return time and step of the first of some rows that has a step.

    Args:
        records: rows as they are stored.
    """
    for record in records:
        assert isinstance(record, bytes)
        row = unpack_records(Block(RECORDS, 0, 1, record))[0].rows[0]
        if row[-1] is not None:
            return row[0], row[-1]  # type: ignore[return-value]
    return None


def _unpack_alike(block: Block) -> Batch | None:
    """Unpack all rows at once, if they have the same shape and the same types."""
    layout = layout_of(block)
    if layout is None:
        return None
    form = f"<{_ROW_HEAD}x" + "".join(_FORMATS[tag] for tag, _ in layout.tags)
    flags = [i for i, (tag, _) in enumerate(layout.tags) if tag in b"TF"]
    rows: list[RawRow] = list(struct.iter_unpack(form, block.payload))
    check_times([row[0] for row in rows])
    if flags:
        rows = [tuple(v == _TRUE if i in flags else v for i, v in enumerate(row)) for row in rows]
    if layout.tags[-1][0] == b"N":
        rows = [(*row, None) for row in rows]
    return Batch(layout.shape, block.seq, rows, [])


class Layout(NamedTuple):
    """How the rows of a block are laid out, where all have the same shape and the same types.

    Attributes:
        shape: the id of their shape, and how many values each has.
        size: the bytes of a row.
        tags: the type of the time, of each value and of the step, and where it stands in a row.
    """

    shape: Shape
    size: int
    tags: list[tuple[bytes, int]]


def layout_of(block: Block) -> Layout | None:
    """Return the layout of a block's rows; ``None`` where they are not alike.

    The first row says where the tags are. If every other row has the same tags at these offsets,
    then by induction these are tags, and the rows are alike.

    Raises:
        ValueError: it holds what no journal does.
    """
    payload, count = block.payload, block.records
    size = len(payload) // count
    if size * count != len(payload):
        return None
    tags: list[tuple[bytes, int]] = []
    pos = _ROW_HEAD
    while pos < size:
        tag = payload[pos : pos + 1]
        if tag not in _SIZES:
            return None
        tags.append((tag, pos))
        column = payload[pos::size]
        if column.strip(b"TF") if tag in b"TF" else column != tag * count:
            return None
        pos += _SIZES[tag]
    for at in range(_ROW_HEAD):
        if payload[at::size] != payload[at : at + 1] * count:
            return None
    values, shape = _HEAD.unpack_from(payload)
    if pos != size or values != len(tags) + 1 or any(tag == b"N" for tag, _ in tags[:-1]):
        return None
    if len(tags) < 2 or tags[0][0] != b"g" or tags[-1][0] not in (b"i", b"N") or shape < 0:
        raise ValueError("a row has no time, or no whole number as its step")
    return Layout((shape, len(tags) - 2), size, tags)


def _unpack_each(block: Block, events: bool) -> Iterator[Batch]:
    payload, pos = block.payload, 0
    batch: Batch | None = None
    for seq in range(block.seq, block.seq + block.records):
        (count,) = _U32.unpack_from(payload, pos)
        pos += 4
        shape: Shape | None = None
        if count:
            row: list[float | int | bool | None] = []
            for _ in range(count):
                value, pos = _value(payload, pos)
                row.append(value)
            shape = _shape_of(row)
        if batch is None or batch.shape != shape:
            if batch is not None:
                yield batch
            batch = Batch(shape, seq, [], [])
        if count:
            batch.rows.append(tuple(row[1:]))
            continue
        (length,) = _U32.unpack_from(payload, pos)
        pos += 4 + length
        if pos > len(payload):
            raise ValueError("an event is cut off")
        if events:
            batch.events.append(unpack_event(payload[pos - length : pos]))
    if pos != len(payload):
        raise ValueError("there is more than the records")
    if batch is not None:
        yield batch


def _shape_of(row: Sequence[float | int | bool | None]) -> Shape:
    """Return the shape of a row, after a check of what is no metric's in it."""
    if len(row) < 3 or None in row[:-1] or type(row[0]) is not int or row[0] < 0:
        raise ValueError("a row is no row")
    if type(row[-1]) not in _STEPS:
        raise ValueError("a row's step is no whole number")
    check_times([row[1]])
    return row[0], len(row) - 3


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
    if digits and max(digits) > 0x7FFF:
        raise ValueError("a digit is no digit")
    number = int("".join(f"{digit:015b}" for digit in reversed(digits)) or "0", 2)
    return (-number if count < 0 else number), pos + 5 + 2 * len(digits)
