"""The rows of a journal as columns, without a Python object for each number.

Rows that are alike stand in a file at equal distances: so each byte of a column is one slice with
a stride, and eight of them make an array of floats.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

from keisei.journal.decoding import Block, Layout, Shape, layout_of
from keisei.journal.format import check_times
from keisei.journal.records import as_float

if TYPE_CHECKING:
    _Columns = Sequence[array[float]]
else:
    _Columns = Sequence  # an array takes no arguments before Python 3.12

_LARGEST = 1 << 20  # bytes of blocks that are read as one: what fits into a processor's cache
_NO_STEP = float("nan")


class ColumnBatch(NamedTuple):
    """Rows of one shape that follow each other.

    Attributes:
        shape: the id of their shape, and how many values each has.
        seq: the number of the first one.
        times: when each was logged, in seconds since the epoch.
        steps: the step of each; NaN where it has none.
        values: a column for each value; it is unpacked when it is asked for.
    """

    shape: Shape
    seq: int
    times: array[float]
    steps: array[float]
    values: Sequence[array[float]]


def joined(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield blocks of records, those in one whose rows may be alike and follow each other."""
    group: list[Block] = []
    size = 0
    for block in blocks:
        if group and (size > _LARGEST or not _goes_on(group[-1], block)):
            yield _one(group)
            group, size = [], 0
        group.append(block)
        size += len(block.payload)
    if group:
        yield _one(group)


def unpack_columns(block: Block) -> ColumnBatch | None:
    """Return the rows of a block as columns; ``None`` where they are not alike.

    Raises:
        ValueError: it holds what no journal does.
    """
    try:
        layout = layout_of(block) if block.payload[4:5] == b"i" else None
    except (struct.error, IndexError) as exc:
        raise ValueError(f"not a journal's record: {exc}") from exc
    if layout is None:
        return None
    times, steps = (_column(block, layout, *layout.tags[at]) for at in (0, -1))
    check_times(times)
    return ColumnBatch(layout.shape, block.seq, times, steps, _Values(block, layout))


class _Values(_Columns):
    """The columns of a block's values, unpacked one by one."""

    def __init__(self, block: Block, layout: Layout) -> None:
        self._block, self._layout = block, layout

    def __len__(self) -> int:
        return len(self._layout.tags) - 2

    @overload
    def __getitem__(self, index: int) -> array[float]: ...
    @overload
    def __getitem__(self, index: slice) -> list[array[float]]: ...
    def __getitem__(self, index: int | slice) -> array[float] | list[array[float]]:
        tags = self._layout.tags[1:-1][index]
        if isinstance(tags, list):
            return [_column(self._block, self._layout, *tag) for tag in tags]
        return _column(self._block, self._layout, *tags)


def as_columns(
    shape: Shape, seq: int, rows: list[tuple[float | int | bool | None, ...]]
) -> ColumnBatch:
    """Return rows that were unpacked one by one as columns."""
    times, *values, steps = ([*column] for column in zip(*rows, strict=True))
    return ColumnBatch(
        shape,
        seq,
        array("d", map(as_float, times)),
        array("d", (_NO_STEP if step is None else as_float(step) for step in steps)),
        [array("d", map(as_float, column)) for column in values],
    )


def _goes_on(last: Block, block: Block) -> bool:
    size, records = len(last.payload), last.records
    return (
        block.seq == last.seq + records
        and size % records == 0
        and size // records * block.records == len(block.payload)
        and last.payload[:9] == block.payload[:9]  # how many values, and the shape's id
    )


def _one(group: list[Block]) -> Block:
    if len(group) == 1:
        return group[0]
    records = sum(block.records for block in group)
    payload = b"".join(block.payload for block in group)
    return Block(group[0].marker, group[0].seq, records, payload)


def _column(block: Block, layout: Layout, tag: bytes, at: int) -> array[float]:
    payload, size, count = block.payload, layout.size, block.records
    if tag == b"N":
        return array("d", [_NO_STEP]) * count
    if tag in b"TF":
        return array("d", [*payload[at::size].translate(_FLAGS)])
    width = 8 if tag == b"g" else 4
    gathered = bytearray(width * count)
    for i in range(width):
        gathered[i::width] = payload[at + 1 + i :: size]
    if tag == b"g":
        return _numbers("d", gathered)
    return array("d", _numbers("i", gathered))


def _numbers(code: str, gathered: bytearray) -> array[float]:
    found: array[float] = array(code)
    found.frombytes(gathered)
    if sys.byteorder == "big":
        found.byteswap()
    return found


_FLAGS = bytes(1 if code == ord("T") else 0 for code in range(256))
