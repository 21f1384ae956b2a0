"""Read the local `run-*.wandb` file in which W&B's SDK keeps a run."""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The file is a log in LevelDB's format behind a header of its own:
#   7 bytes of header, then blocks of 32 KiB (the first one counts the header in);
#   in a block, chunks of (crc32 of type and data, length, type) and data;
#   a record is one FULL chunk, or FIRST, any number of MIDDLE, LAST;
#   a block's last bytes are padding where no chunk header fits.
_HEADER = b":W&B\xe1\xbe\x00"
_BLOCK = 32 * 1024
_CHUNK = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class RunFile:
    """What one local run file holds; fields are empty or None where it says nothing.

    W&B's own entry `_wandb` is left out of config and summary.

    Args:
        path: The file that was read.
        torn: Whether reading stopped at a damaged or incomplete record.
        run_id: The run's id.
        project: The run's project.
        display_name: The run's name, as last set.
        config: The run's config with all its later updates.
        history: One dictionary for each row; nested names become nested dictionaries.
        summary: The last value of each metric, and what was set explicitly.
        exit_code: The exit code, or None if the file has no exit record.
    """

    path: Path
    torn: bool = False
    run_id: str | None = None
    project: str | None = None
    display_name: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


class NotARunFileError(ValueError):
    """The file does not begin as W&B's run files do."""


def find_run_files(directory: Path) -> list[Path]:
    """Find the local run files of online and offline runs, at any depth.

    Args:
        directory: Where to look.

    Returns:
        The paths of all `wandb/*run-*/run-*.wandb`, sorted.
    """
    return sorted(directory.rglob("wandb/*run-*/run-*.wandb"))


def read_run_file(path: Path) -> RunFile:
    """Read a local run file up to its end or to the first damage.

    Args:
        path: The `run-*.wandb` file; it may still be being written.

    Returns:
        What the file holds.

    Raises:
        OSError: The file cannot be read.
        NotARunFileError: The file has a header, but not W&B's.
    """
    content = path.read_bytes()
    if not _HEADER.startswith(content[: len(_HEADER)]):
        raise NotARunFileError(f"not a W&B run file: {path}")
    log = _Log(content)
    record = _record_type()
    found: dict[str, Any] = {"config": {}, "history": [], "summary": {}}
    for payload in log.payloads():
        _take(found, record.FromString(payload))
    for own in (found["config"], found["summary"]):
        own.pop("_wandb", None)
    return RunFile(path=path, torn=log.torn, **found)


def wait_for_exit_record(path: Path, timeout: float = 60.0) -> RunFile:
    """Wait until a local run file has its exit record, which may follow `finish()`.

    Args:
        path: The `run-*.wandb` file; it need not exist yet.
        timeout: How long to wait at most, in seconds.

    Returns:
        What the file holds.

    Raises:
        TimeoutError: There was no exit record in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        if path.exists():
            run = read_run_file(path)
            if run.exit_code is not None:
                return run
        if time.monotonic() >= deadline:
            raise TimeoutError(f"no exit record within {timeout} s in {path}")
        time.sleep(0.01)


class _Log:
    """A record log; `torn` is known once all its payloads have been read."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.torn = len(content) < len(_HEADER)

    def payloads(self) -> Iterator[bytes]:
        """Yield the records' payloads, up to the end or to the first damage."""
        parts: list[bytes] = []
        at = len(_HEADER)
        while not self.torn and at < len(self._content):
            left_in_block = _BLOCK - at % _BLOCK
            if left_in_block < _CHUNK.size:
                at += left_in_block
                continue
            chunk = self._chunk(at)
            if chunk is None or (chunk[0] in (_FULL, _FIRST)) == bool(parts):
                self.torn = True
                return
            kind, data = chunk
            at += _CHUNK.size + len(data)
            parts.append(data)
            if kind in (_FULL, _LAST):
                yield b"".join(parts)
                parts = []
        self.torn = self.torn or bool(parts)

    def _chunk(self, at: int) -> tuple[int, bytes] | None:
        """Return a chunk's type and data, or None if it is damaged or incomplete."""
        start = at + _CHUNK.size
        if start > len(self._content):
            return None
        checksum, length, kind = _CHUNK.unpack_from(self._content, at)
        data = self._content[start : start + length]
        whole = len(data) == length and kind in (_FULL, _FIRST, _MIDDLE, _LAST)
        if not whole or zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            return None
        return kind, data


def _record_type() -> Any:
    """Return W&B's protobuf class for a record, importing the SDK only now."""
    # Read when the SDK is imported: without it the process may end 10 s late.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    from wandb.proto import wandb_internal_pb2

    return vars(wandb_internal_pb2)["Record"]


def _take(found: dict[str, Any], record: Any) -> None:
    """Enter what one record says into the fields found so far."""
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run = record.run
        for name in ("run_id", "project", "display_name"):
            if value := getattr(run, name):
                found[name] = value
        _apply(found["config"], run.config)
        _apply(found["summary"], run.summary)
    elif kind == "config":
        _apply(found["config"], record.config)
    elif kind == "summary":
        _apply(found["summary"], record.summary)
    elif kind == "history":
        row: dict[str, Any] = {}
        _set_items(row, record.history.item)
        found["history"].append(row)
    elif kind == "exit":
        found["exit_code"] = record.exit.exit_code


def _apply(values: dict[str, Any], change: Any) -> None:
    """Apply a config's or summary's updates and removals."""
    _set_items(values, change.update)
    for item in change.remove:
        holder, name = _place(values, item)
        holder.pop(name, None)


def _set_items(values: dict[str, Any], items: Iterable[Any]) -> None:
    """Set each item's value, decoded from its JSON."""
    for item in items:
        holder, name = _place(values, item)
        holder[name] = json.loads(item.value_json)


def _place(values: dict[str, Any], item: Any) -> tuple[dict[str, Any], str]:
    """Return the innermost dictionary and last name that an item's key leads to."""
    *outer, last = [item.key] if item.key else list(item.nested_key)
    for name in outer:
        inner = values.get(name)
        if not isinstance(inner, dict):
            inner = values[name] = {}
        values = inner
    return values, last
