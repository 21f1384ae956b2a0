"""The journal's file format, and how rows become bytes.

A journal is one file per attempt, `metrics.{attempt}.journal`, that only grows: a sequence of
blocks, each on its own safe to check and to skip. All numbers are little-endian.

A block is a marker of four bytes (`f5 4b 4a`, and the block's kind), a CRC-32 of all that comes
after it, then the payload's length, the number of records in it, the sequence number of the first
one, and the payload. The kinds:

- `H`, the first block: JSON with the format's version, the attempt, and the time.
- `K`: JSON with a shape, that is the id and the keys of rows to come; `N`: the same, compressed by
  zlib (since version 2, where it is long). A shape is written before the first row that has it,
  and again behind the second one, so that no single fault takes the names of several rows; then
  behind one row in every few MiB, so that the names of the last rows are near the end.
- `R`: records, one after the other: rows and events. An event is a zero (u32), the length of its
  JSON (u32), and the JSON: time, name, data.

A row is the number (u32) of the tagged values that follow: the id of its shape, the time (seconds
since the epoch), one value per key, and the step. The tags are `i` (i32), `g` (float64), `T`,
`F`, `N` (no step), and `l`, an integer of any size: its number of digits (i32, negative for a
negative number), then digits of 15 bits in u16, the lowest first. This is what the standard
library's `marshal` writes for a list of such values in its version 2, after the `[` of the list:
one call, in C, copies the values of a row, and the tags then show whether they were all what a
row may hold. The module checks once, at import, that this `marshal` does so, and else does the
same by itself. Nothing is ever read back by `marshal`.
"""

from __future__ import annotations

import json
import marshal
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from keisei.errors import quoted
from keisei.journal.values import Number, Unread, number_or_unread

VERSION = 2  # journals of version 1 have no block `N`, and are read all the same
PREFIX = b"\xf5KJ"
HEADER, SHAPE, RECORDS = PREFIX + b"H", PREFIX + b"K", PREFIX + b"R"
PACKED_SHAPE = PREFIX + b"N"  # two bits from any other kind, as they all are
SHAPES = frozenset([SHAPE, PACKED_SHAPE])
MARKERS = frozenset([HEADER, RECORDS, *SHAPES])

# A row or an event as it is stored, or the JSON of a large event.
Record = bytes | str

_HEAD = struct.Struct("<4sI")
_BODY = struct.Struct("<IIQ")
_EVENT = struct.Struct("<II")
HEAD_SIZE = _HEAD.size + _BODY.size
MARKER_SIZE = 4
LARGEST = 1 << 26
# The last byte of a block's length, seven behind its marker, is at most 4. Damage that is full of
# markers is passed over by the search itself, which is a tenth of the time.
_NO_LENGTH = rb"(?!(?s:.{7})[\x05-\xff])"
ANY_BLOCK = re.compile(rb"\xf5KJ[HKNR]" + _NO_LENGTH)
ANY_SHAPE = re.compile(rb"\xf5KJ[KN]" + _NO_LENGTH)
_SMALLEST = 16  # bytes of a record
_LAST = 1 << 53  # no sequence number goes so far

# Payloads stay under 5 KiB where rows are small: above that, `zlib.crc32` gives up the GIL, and
# waits 5 ms for it where the training computes in Python. It also is what a flipped bit costs.
RECORDS_PER_BLOCK = 40

# From this size on, bytes are neither copied nor encoded at once, which would hold the GIL.
LARGE = 1 << 18
_LONG_NAMES = 512  # bytes of JSON that are worth compressing
_MOST_PACKED = 100  # times that names may be longer than what they are compressed to

# What is stored of what `dump` returns; and the tags of a row, of which each but the last is a
# float's, beginning with the time's.
STORED = slice(1, None)
TAGS = slice(9, None, 9)
SHAPE_ID = slice(4, 9)  # what the rows of a shape have in common, and no event has
_DEEPEST, _DEEPEST_EVENT = 32, 100
_TIMES = frozenset([float, int])
_EARLIEST, _LATEST = -6e10, 2.5e11  # seconds since the epoch: the years 69 to 9892
_FILE = re.compile(r"metrics\.([1-9][0-9]{0,8})(?:\.([A-Za-z0-9][A-Za-z0-9._-]{0,127}))?\.journal")


def file_name(attempt: int, part: str | None = None) -> str:
    """Return the name of an attempt's journal: the owner's, or that of another part of the run."""
    return f"metrics.{attempt}.journal" if part is None else f"metrics.{attempt}.{part}.journal"


def attempt_of(name: str, part: str | None = None) -> int | None:
    """Return the attempt whose journal has this name; ``None`` where it is no journal's.

    Args:
        name: the file's name.
        part: whose journals are meant; ``None`` for the owner's own.
    """
    found = part_of(name)
    return found[0] if found and found[1] == part else None


def part_of(name: str) -> tuple[int, str | None] | None:
    """Return the attempt and the part whose journal has this name; ``None`` where it is no journal.

    The part is ``None`` for the owner's own journal.
    """
    found = _FILE.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def pack_block(
    marker: bytes, seq: int, count: int, payload: Iterable[bytes], size: int
) -> list[bytes]:
    """Return a block, in pieces of which the first is its head.

    Args:
        marker: the kind.
        seq: the sequence number of its first record.
        count: how many records it holds.
        payload: the records, or JSON, in pieces; other threads get the GIL between large ones.
        size: how many bytes that is.
    """
    body = _BODY.pack(size, count, seq)
    crc = zlib.crc32(body)
    pieces = [b""]
    for piece in payload:
        crc = zlib.crc32(piece, crc)
        pieces.append(piece)
    pieces[0] = _HEAD.pack(marker, crc) + body
    return pieces


def block_size(data: bytes, pos: int) -> int | None:
    """Return the size that the block at an offset says it has; ``None`` where there is none."""
    marker = data[pos : pos + MARKER_SIZE]
    if marker not in MARKERS:
        return None
    length, count, seq = _BODY.unpack_from(data, pos + _HEAD.size)
    if marker == RECORDS and not (0 < count * _SMALLEST <= length and seq + count < _LAST):
        return None
    return HEAD_SIZE + length if length <= LARGEST else None


def read_block(data: bytes, pos: int, size: int) -> tuple[bytes, int, int, bytes] | None:
    """Return marker, sequence number, count and payload; ``None`` where the checksum is wrong."""
    marker, crc = _HEAD.unpack_from(data, pos)
    _, count, seq = _BODY.unpack_from(data, pos + _HEAD.size)
    payload = data[pos + HEAD_SIZE : pos + size]
    body = data[pos + _HEAD.size : pos + HEAD_SIZE]
    if zlib.crc32(payload, zlib.crc32(body)) != crc:
        return None
    return marker, seq, count, payload


def pack_json(marker: bytes, data: object) -> bytes:
    """Return a block of JSON that numbers no record."""
    text = json.dumps(data, separators=(",", ":")).encode()
    return b"".join(pack_block(marker, 0, 0, [text], len(text)))


def pack_shape(number: int, keys: tuple[str, ...]) -> bytes:
    """Return the block of a shape."""
    text = json.dumps({"id": number, "keys": keys}, separators=(",", ":")).encode()
    marker, payload = SHAPE, text
    if len(text) >= _LONG_NAMES:
        packed = zlib.compress(text, 1)
        if len(text) < _MOST_PACKED * len(packed):
            marker, payload = PACKED_SHAPE, packed
    return b"".join(pack_block(marker, 0, 0, [payload], len(payload)))


def shape_id(number: int) -> bytes:
    """Return what the rows of a shape have at `SHAPE_ID`."""
    return struct.pack("<ci", b"i", number)


def unpack_shape(marker: bytes, payload: bytes) -> tuple[int, tuple[str, ...]]:
    """Return the id and the keys of a shape.

    Raises:
        ValueError: it is none.
    """
    try:
        if marker == PACKED_SHAPE:
            unpacker = zlib.decompressobj()
            payload = unpacker.decompress(payload, _MOST_PACKED * len(payload))
            if not unpacker.eof:
                raise ValueError("a shape is too large")
        shape = json.loads(payload)
        number, keys = shape["id"], tuple(shape["keys"])
    except (zlib.error, KeyError, TypeError, RecursionError) as exc:
        raise ValueError(f"not a shape: {exc}") from exc
    if type(number) is not int or number < 0 or not all(type(key) is str for key in keys):
        raise ValueError("not a shape")
    return number, keys


def event_text(time: float, name: str, data: object) -> str:
    """Return the JSON of an event.

    Raises:
        TypeError: it is not JSON's kind of data, or is a circle.
    """
    if not isinstance(name, str):
        raise TypeError(f"an event's name must be a string, not {type(name).__name__}")
    try:
        text = json.dumps([time, name, data], separators=(",", ":"))  # of ASCII alone
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(f"event {quoted(name)} is no JSON data: {exc}") from exc
    if not _is_shallow(text, data):
        raise TypeError(f"event {quoted(name)} is nested more than {_DEEPEST_EVENT} deep")
    if len(text) > LARGEST // 2:
        raise TypeError(f"event {quoted(name)} is too large: {len(text):,} bytes")
    return text


def is_row(record: Record) -> bool:
    """Return whether a record is a row, and no event."""
    return type(record) is bytes and record[:4] != b"\0\0\0\0"


def pack_event(text: str) -> Record:
    """Return the record of an event's JSON; that of a large one is encoded by the writer."""
    return text if len(text) >= LARGE else _EVENT.pack(0, len(text)) + text.encode()


def unpack_event(payload: bytes) -> tuple[float, str, object]:
    """Return an event's time, name and data.

    Raises:
        ValueError: it is none, or no JSON writer takes it. What `json` raises is raised as it is.
    """
    text = payload.decode()
    time, name, data = json.loads(text)
    if type(name) is not str or not _is_shallow(text, data):
        raise ValueError("not an event")
    check_times([time])
    return time, name, data


def _is_shallow(text: str, data: object) -> bool:
    """Return whether every reader and tracker can go through an event's data, which it recurses."""
    if text.count("[") + text.count("{") <= _DEEPEST_EVENT:
        return True
    level = [data]
    for _ in range(_DEEPEST_EVENT):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list, tuple))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return True
    return False


def check_times(times: Sequence[Any]) -> None:
    """Check that times are moments that a calendar has.

    Raises:
        ValueError: one is none.
    """
    if not _TIMES.issuperset(map(type, times)):
        raise ValueError("a time is no number")
    total = sum(times)
    if not (min(times) > _EARLIEST and max(times) < _LATEST) or total != total:
        raise ValueError("a time is none")


def pack_records(seq: int, records: Sequence[Record]) -> Iterator[bytes]:
    """Yield blocks of records, piece by piece.

    Args:
        seq: the sequence number of the first record.
        records: rows and events.
    """
    for start in range(0, len(records), RECORDS_PER_BLOCK):
        some = records[start : start + RECORDS_PER_BLOCK]
        try:
            payload = b"".join(some)  # type: ignore[arg-type]
        except TypeError:  # a large event is among them
            payload = b""
        if 0 < len(payload) <= LARGEST:
            yield from pack_block(RECORDS, seq + start, len(some), [payload], len(payload))
            continue
        for number, one in enumerate(some, seq + start):
            if isinstance(one, str):
                size = _EVENT.size + len(one)
                yield from pack_block(RECORDS, number, 1, _encoded(one), size)
            else:
                yield from pack_block(RECORDS, number, 1, [one], len(one))


def _encoded(text: str) -> Iterator[bytes]:
    """Yield the record of a large event."""
    yield _EVENT.pack(0, len(text))
    for start in range(0, len(text), LARGE):
        yield text[start : start + LARGE].encode()


def flatten(metrics: Mapping[str, object]) -> dict[str, Number | Unread]:
    """Return a row's values as exact floats, ints and bools, nested names joined with `/`.

    Those that may still be under computation are left unread.

    Raises:
        TypeError: a value is no number, or a key no string; the message names the key.
    """
    flat: dict[str, Number | Unread] = {}
    _flatten(metrics, "", flat, 0)
    return flat


def _flatten(
    metrics: Mapping[str, object], prefix: str, flat: dict[str, Number | Unread], depth: int
) -> None:
    for name, value in metrics.items():
        if not isinstance(name, str):
            where = f" under {quoted(prefix)}" if prefix else ""
            raise TypeError(f"a metric's name must be a string, not {quoted(name)}{where}")
        key = prefix + str.__str__(name)
        if isinstance(value, Mapping):
            if depth >= _DEEPEST:
                raise TypeError(f"metric {quoted(key)} is nested more than {_DEEPEST} deep")
            _flatten(value, key + "/", flat, depth + 1)
        elif key in flat:
            raise TypeError(f"metric {quoted(key)} is given twice, once as a nested name")
        else:
            flat[key] = number_or_unread(key, value)


def _dump(values: Iterable[object], version: int = 2, /) -> bytes:
    """Return what `marshal` makes of a list of a row's values."""
    parts = []
    for value in values:
        if value is None:
            parts.append(b"N")
        elif type(value) is bool:
            parts.append(b"T" if value else b"F")
        elif type(value) is float:
            parts.append(b"g" + struct.pack("<d", value))
        elif type(value) is not int:
            raise ValueError("unmarshallable object")
        elif -(1 << 31) <= value < 1 << 31:
            parts.append(b"i" + struct.pack("<i", value))
        else:
            rest, digits = abs(value), []
            while rest:
                digits.append(rest & 0x7FFF)
                rest >>= 15
            sign = -1 if value < 0 else 1
            parts.append(struct.pack(f"<ci{len(digits)}H", b"l", sign * len(digits), *digits))
    return b"[" + struct.pack("<I", len(parts)) + b"".join(parts)


def _choose() -> Callable[[list[object], int], bytes]:
    probe = [
        0,
        -7,
        2**31,
        -(2**31),
        2**63,
        -(2**90) + 1,
        1.5,
        -0.0,
        float("inf"),
        True,
        False,
        None,
    ]
    try:
        same = marshal.dumps(probe, 2) == _dump(probe)
    except ValueError:
        same = False
    return marshal.dumps if same else _dump


dump = _choose()
