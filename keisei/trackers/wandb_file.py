"""The framing of the file in which W&B's SDK keeps a run: it ships no reader or writer of its own.

A log in LevelDB's format behind a header of W&B's: blocks of 32 KiB (the first counts the header
in), in a block chunks of checksum, length, type and data; a record is one FULL chunk, or FIRST,
any number of MIDDLE, LAST. A record's payload is a protobuf `Record`.
"""

from __future__ import annotations

import importlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK = 32 * 1024
_CHUNK = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class RunFile:
    """What a run file holds, as far as an upload needs it.

    Attributes:
        entity: whose run it is; empty for the login's own.
        project: the project it belongs to; empty for W&B's default.
        steps: the `_step` of each history row.
        torn: whether reading stopped at a record that is damaged or incomplete.
    """

    entity: str = ""
    project: str = ""
    steps: list[int] = field(default_factory=list)
    torn: bool = False


def read(path: str) -> RunFile:
    """Read a run file up to its end or its first damage.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
    """
    found = RunFile(torn=True)
    end = 0
    for payload, end in _payloads(path):
        record = _record(payload)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            found.steps.append(record.history.step.num)
        elif kind == "run":
            found.entity = record.run.entity or found.entity
            found.project = record.run.project or found.project
    found.torn = os.path.getsize(path) > end
    return found


def write_rest(path: str, original: str, skip: int, ending: str | None) -> None:
    """Write a run file that holds what another one holds, without its first rows.

    Args:
        path: the file to write.
        original: the file to copy; what follows a damage in it is left out.
        skip: how many of its first history rows to leave out.
        ending: another run file, whose summary and exit take the place of the original's.

    Raises:
        OSError: one of them cannot be read or written.
    """

    def chosen() -> Iterator[bytes]:
        left = skip
        for payload, _ in _payloads(original):
            kind = _record(payload).WhichOneof("record_type")
            if kind == "history" and left:
                left -= 1
            elif ending is None or kind not in ("summary", "exit"):
                yield payload
        if ending is not None:
            for payload, _ in _payloads(ending):
                if _record(payload).WhichOneof("record_type") in ("summary", "exit"):
                    yield payload

    with open(path, "wb") as file:
        _write(file, chosen())


def _record(payload: bytes) -> Any:
    return importlib.import_module("wandb.proto.wandb_internal_pb2").Record.FromString(payload)


def _payloads(path: str) -> Iterator[tuple[bytes, int]]:
    """Yield each record's payload, and where it ends, up to the end or the first damage."""
    with open(path, "rb") as file:
        if file.read(len(_HEADER)) != _HEADER:
            return
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
