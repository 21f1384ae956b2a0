"""The framing of the file in which W&B's SDK keeps a run: it ships no reader or writer of its own.

A log in LevelDB's format behind a header of W&B's: blocks of 32 KiB (the first counts the header
in), in a block chunks of checksum, length, type and data; a record is one FULL chunk, or FIRST,
any number of MIDDLE, LAST. A record's payload is a protobuf `Record`.
"""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from keisei.trackers.wandb import private, sdk

_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK = 32 * 1024
_CHUNK = struct.Struct("<IHB")
_BLOCKS_AT_ONCE = 64
_HOLE = bytes(_BLOCK)  # what a file that was never written to its end reads as
_MOST_BLOCKS = (1 << 26) // _BLOCK  # that one record may take
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Records that only say something of the run. The others make the SDK read or write other files.
_PLAIN = frozenset(
    "config environment exit final footer header metric output output_logger output_raw preempting "
    "stats summary telemetry".split()
)

Holds = Callable[[Any], bool]


def every_row(row: Any) -> bool:
    """Return true: every history row is one that counts."""
    return True


@dataclass
class RunFile:
    """What a run file holds, as far as an upload needs it.

    Attributes:
        holds_run: whether it says which run it is about.
        entity: whose run it is; empty for the login's own.
        project: the project it belongs to; empty for W&B's default.
        steps: the `_step` of each history row that holds.
        left_behind: whether there are others, which a resumed run has left behind.
        torn: whether reading stopped at a record that is damaged or incomplete.
        names: the files that it has the SDK upload, as it names them.
        orders: what else it has the SDK do, by the kind of record.
    """

    holds_run: bool = False
    entity: str = ""
    project: str = ""
    steps: list[int] = field(default_factory=list)
    left_behind: bool = False
    torn: bool = False
    names: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)


def read(path: str, holds: Holds = every_row) -> RunFile:
    """Read a run file up to its end or its first damage.

    Args:
        path: the file.
        holds: returns whether a history row is one that an uninterrupted run would have.

    Raises:
        OSError: it cannot be read.
    """
    found = RunFile()
    whole = 0
    for payload, end in _payloads_of(path):
        whole = end
        record = parsed(payload)
        kind = record.WhichOneof("record_type")
        if kind == "history" and not holds(record):
            found.left_behind = True
        elif kind == "history":
            found.steps.append(record.history.step.num)
        elif kind == "files":
            found.names.update(item.path for item in record.files.files)
        elif kind == "run":
            found.holds_run = True
            found.entity = record.run.entity or found.entity
            found.project = record.run.project or found.project
        elif kind not in _PLAIN:
            found.orders.add(str(kind))
    found.torn = os.path.getsize(path) > whole
    return found


def rows_of(path: str) -> Iterator[Any]:
    """Yield the history rows of a run file, up to its end or its first damage.

    Raises:
        OSError: it cannot be read.
    """
    for payload, _ in _payloads_of(path):
        record = parsed(payload)
        if record.WhichOneof("record_type") == "history":
            yield record


def write_rest(
    path: str,
    original: str,
    skip: int,
    ending: str | None,
    holds: Holds = every_row,
    shift: int = 0,
    before: Iterable[str] = (),
) -> None:
    """Write a run file that holds what another one holds, without its first rows.

    Args:
        path: the file to write.
        original: the file to copy; what follows a damage in it is left out.
        skip: how many of its first history rows that hold to leave out.
        ending: another run file, whose summary and exit take the place of the original's.
        holds: returns whether a history row is to be written at all.
        shift: by how much to raise the rows' steps.
        before: other run files, whose log lines are to come first.

    Raises:
        OSError: one of them cannot be read or written.
    """

    def chosen() -> Iterator[bytes]:
        left = skip
        for path in before:
            for payload, _ in _payloads_of(path):
                if parsed(payload).WhichOneof("record_type") == "output_logger":
                    yield payload
        for payload, _ in _payloads_of(original):
            record = parsed(payload)
            kind = record.WhichOneof("record_type")
            if kind == "history" and not holds(record):
                continue
            if kind == "history" and left:
                left -= 1
            elif kind == "history" and shift:
                yield _shifted(record, shift)
            elif ending is None or kind not in ("summary", "exit"):
                yield payload
        if ending is not None:
            for payload, _ in _payloads_of(ending):
                if parsed(payload).WhichOneof("record_type") in ("summary", "exit"):
                    yield payload

    with open(path, "wb") as file:
        _write(file, chosen())


def _shifted(record: Any, shift: int) -> bytes:
    record.history.step.num += shift
    for item in record.history.item:
        if "/".join(item.nested_key) == "_step" or item.key == "_step":
            item.value_json = json.dumps(int(json.loads(item.value_json)) + shift)
    return bytes(record.SerializeToString())


@dataclass
class Rest:
    """The file to upload in place of a run file; a copy lies beside it, where its media are.

    Args:
        original: the run file.
        skip: how many of its first history rows that hold to leave out.
        ending: another run file, whose summary and exit take the place of the original's.
        copy: whether a copy is needed; else it is the original itself.
        fresh: whether the copy's steps are counted anew, and not as the attempt itself had them.
        shift: by how much they are raised in the copy.
        before: other run files, whose log lines the copy begins with.
        holds: returns whether a history row is to be uploaded at all.
    """

    original: str
    skip: int
    ending: str | None
    copy: bool
    fresh: bool = False
    shift: int = 0
    before: tuple[str, ...] = ()
    holds: Holds = every_row

    def __enter__(self) -> str:
        if not self.copy:
            return self.original
        write_rest(
            self._path, self.original, self.skip, self.ending, self.holds, self.shift, self.before
        )
        # The SDK's note of the step at which the attempt stands on the server.
        if not self.fresh:
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{self.original}.syncstate", f"{self._path}.syncstate")
        with suppress(FileNotFoundError):
            os.unlink(f"{self._path}.synced")
        return self._path

    def __exit__(self, kind: object, *exc: object) -> None:
        if self.copy:
            # After a failure the copy's state is what the next try has to begin with.
            for end in ("", ".synced", *([".syncstate"] if kind is None else [])):
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._path}{end}")

    @property
    def _path(self) -> str:
        head, tail = os.path.split(self.original)
        return os.path.join(head, f".rest-{tail}")


def parsed(payload: bytes) -> Any:
    """Parse a record's payload into the SDK's own type for it."""
    return _record_type().FromString(payload)


def last_payloads(path: str, mark: bytes) -> Iterator[bytes]:
    """Yield the payloads that hold some bytes, the last one first; what is torn is left out.

    Nothing is read that is not needed: a file of gigabytes whose end is of interest costs no more
    than a small one.

    Args:
        path: the file.
        mark: the bytes.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(len(_HEADER)) != _HEADER:
            return
        end, blocks = file.seek(0, os.SEEK_END), 1
        while end > len(_HEADER):
            start = max(0, (end - 1) // _BLOCK + 1 - blocks) * _BLOCK
            file.seek(start)
            data = file.read(end - start)
            first = _first_record(data) if start else len(_HEADER)
            if first is None:
                if blocks < _MOST_BLOCKS:
                    blocks *= 4  # all of it is of one record
                else:  # or of none: a hole
                    end, blocks = start, _BLOCKS_AT_ONCE
                continue
            # Nothing but the header of a block's first chunk may cut the mark in two.
            if mark in b"".join(
                data[at + _CHUNK.size : at + _BLOCK] for at in range(0, len(data), _BLOCK)
            ):
                found = [payload for payload, _ in _payloads(io.BytesIO(data), first)]
                yield from (payload for payload in reversed(found) if mark in payload)
            end, blocks = start + first, _BLOCKS_AT_ONCE


def _first_record(data: bytes) -> int | None:
    """Find where the first record begins in data that begin with a block."""
    at = 0
    while at + _CHUNK.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left == _BLOCK and data.startswith(_HOLE, at):
            at += _BLOCK
            continue
        if left < _CHUNK.size:
            at += left
            continue
        _, length, kind = _CHUNK.unpack_from(data, at)
        if kind in (_FULL, _FIRST):
            return at
        at += _CHUNK.size + length
    return None


@functools.cache
def _record_type() -> Any:
    sdk.load_sdk()
    return private.get("Record")


def _payloads_of(path: str) -> Iterator[tuple[bytes, int]]:
    with open(path, "rb") as file:
        if file.read(len(_HEADER)) == _HEADER:
            yield from _payloads(file, len(_HEADER))


def _payloads(file: BinaryIO, start: int) -> Iterator[tuple[bytes, int]]:
    """Yield each record's payload, and where it ends, up to the end or the first damage."""
    file.seek(start)
    parts: list[bytes] = []
    while True:
        left = _BLOCK - file.tell() % _BLOCK
        if left < _CHUNK.size:
            file.seek(left, os.SEEK_CUR)
            continue
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            return
        checksum, length, kind = _CHUNK.unpack(head)
        data = file.read(length)
        if len(data) < length or zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            return
        if (kind in (_FULL, _FIRST)) == bool(parts):
            return
        parts.append(data)
        if kind in (_FULL, _LAST):
            yield b"".join(parts), file.tell()
            parts = []


def _write(file: BinaryIO, payloads: Iterable[bytes]) -> None:
    file.write(_HEADER)
    for payload in payloads:
        data, first = memoryview(payload), True
        while True:
            left = _BLOCK - file.tell() % _BLOCK
            if left < _CHUNK.size:
                file.write(bytes(left))
                continue
            part, data = data[: left - _CHUNK.size], data[left - _CHUNK.size :]
            kind = (_FULL if first else _LAST) if not data else (_FIRST if first else _MIDDLE)
            checksum = zlib.crc32(part, zlib.crc32(bytes([kind])))
            file.write(_CHUNK.pack(checksum, len(part), kind) + part)
            first = False
            if not data:
                break
