"""A state on its way to the disk and back: packed on the loop, written and read on a thread.

A checkpoint holds what the program hands over: nothing in it is redacted, secrets included. Its
files are the user's own data, with mode 0600. Nothing in them is ever executed: there is no pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from keisei._io.files import OpenDirectory
from keisei.checkpoints import tensors, tree
from keisei.checkpoints.arrays import Held, hold, scalar_json, scalar_of
from keisei.checkpoints.manifest import LARGEST, ArrayEntry, FileEntry, Manifest
from keisei.checkpoints.streams import Sink, Source
from keisei.errors import CheckpointError, quoted

STATE = "state"
RANDOM = "random"
ARRAYS = "arrays.safetensors"
_NAME = 200  # characters of a key in an array's name


class Packed(NamedTuple):
    """A state that the program may change again, where it was copied.

    Attributes:
        text: the JSON of it, in pieces.
        arrays: its arrays, by name.
        nbytes: the bytes that it takes on the disk, headers apart.
    """

    text: list[str]
    arrays: list[tuple[str, Held]]
    nbytes: int


def pack(state: Mapping[Any, Any], *, copy: bool) -> Packed:
    """Return a state as it is to be written; it imports nothing and touches no disk.

    Args:
        state: the state (see `tree` and `arrays` for what can be in it).
        copy: whether the arrays in it may change as soon as this returns; without, not before
            they are written. Everything else may change in any case.

    Raises:
        CheckpointError: something in it cannot be kept; the message has the keys that lead there.
        MissingExtraError: there are tensors in it, and numpy is not installed.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"a state is a mapping of names to values, or a function that writes files, and not "
            f"{quoted(type(state).__name__)}: save {{'state': value}}"
        )
    arrays: dict[str, Held] = {}

    def foreign(value: object, path: tree.Path) -> str | None:
        if type(value) in (bytes, bytearray) and len(value) <= tree.LONG:  # type: ignore[arg-type]
            return None
        if (scalar := scalar_json(value)) is not None:
            return json.dumps(scalar, separators=(",", ":"))
        if (held := hold(value, copy=copy)) is None:
            return None
        name = _free_name(path, arrays)
        arrays[name] = held
        return f'{{"$":"array","v":{json.dumps(name)}}}'

    text = tree.encode(state, foreign)
    length = sum(map(len, text))
    if length > LARGEST:
        raise CheckpointError(
            f"the state has {length:,} bytes besides its arrays, and at most {LARGEST:,} are read "
            "again: keep long lists of numbers as arrays"
        )
    return Packed(text, list(arrays.items()), length + sum(a.nbytes for a in arrays.values()))


def write_packed(
    directory: OpenDirectory, prefix: str, packed: Packed, algorithm: str
) -> tuple[list[FileEntry], list[ArrayEntry]]:
    """Write a packed state to new files, and digest the very bytes that are written.

    It blocks; beside it other threads go on. The files are synced, their directory is not.

    Args:
        directory: the directory of the checkpoint, which has no such files yet.
        prefix: the name of the JSON file, without its ending; the arrays are in `ARRAYS`.
        packed: the state.
        algorithm: of the digests.

    Returns:
        The files, and the arrays in them.

    Raises:
        CheckpointError: an array is no longer there.
        OSError: a file cannot be written.
    """
    files: list[FileEntry] = []
    entries: list[ArrayEntry] = []
    with Sink(directory, f"{prefix}.json", algorithm) as sink:
        for start in range(0, len(packed.text), 4096):  # by parts: a join holds the GIL
            part = "".join(packed.text[start : start + 4096]).encode("ascii")
            sink.add(memoryview(part), stable=True)
        files.append(sink.end())
    if packed.arrays:
        with Sink(directory, ARRAYS, algorithm) as sink:
            entries = tensors.write(sink, packed.arrays)
            files.append(sink.end())
    return files, entries


def read_packed(directory: OpenDirectory, prefix: str, manifest: Manifest) -> dict[Any, Any]:
    """Read a state that `write_packed` has written, and verify each byte of it.

    Arrays come back as what they were where their library is imported, else as numpy's; tensors
    on the CPU. It blocks, imports numpy where there are arrays, and executes nothing of what it
    reads, whoever has written it.

    Args:
        directory: the directory of the checkpoint.
        prefix: the name of the JSON file, without its ending.
        manifest: what is in the checkpoint.

    Raises:
        CheckpointError: it is not what the manifest says (``corrupt`` is set).
        MissingExtraError: a library is missing that is needed to verify or to read it.
        OSError: a file cannot be read.
    """
    text = _read_json(directory, f"{prefix}.json", manifest)
    arrays: dict[str, object] = {}
    if prefix == STATE and manifest.arrays:
        entry = _entry(directory, ARRAYS, manifest)
        with Source(directory, entry, manifest.algorithm) as source:
            arrays = tensors.read(source, manifest.arrays, entry.size)
            source.end()

    def foreign(kind: str, node: dict[str, Any]) -> object:
        if kind == "array":
            return arrays[node["v"]]
        return scalar_of(node) if kind == "scalar" else None

    state = tree.decode(text, foreign)
    if not isinstance(state, dict):
        raise CheckpointError(
            "the checkpoint does not verify: its state is no mapping",
            path=directory.path,
            corrupt=True,
        )
    return state


def _read_json(directory: OpenDirectory, name: str, manifest: Manifest) -> bytes:
    entry = _entry(directory, name, manifest)
    with Source(directory, entry, manifest.algorithm) as source:
        if entry.size > LARGEST:
            raise source.corrupt(f"is longer than {LARGEST:,} bytes")
        text = bytearray(entry.size)
        source.read(memoryview(text))
        source.end()
    return bytes(text)


def _entry(directory: OpenDirectory, name: str, manifest: Manifest) -> FileEntry:
    if (entry := manifest.file(name)) is None:
        raise CheckpointError(
            f"the checkpoint does not verify: its manifest has no {name}",
            path=directory.path,
            corrupt=True,
        )
    return entry


def _free_name(path: tree.Path, taken: Mapping[str, object]) -> str:
    """Return the keys that lead to an array as one name, which no other array has."""
    name = "/".join(map(_part, path))
    free, number = name, 1
    while free in taken or free in ("", "__metadata__"):
        number += 1
        free = f"{name}~~{number}"
    return free


def _part(key: object) -> str:
    if type(key) is not str:
        key = str(key) if isinstance(key, int | float) or key is None else quoted(key, 60)
    text = key[:_NAME].replace("~", "~0").replace("/", "~1")
    return text if text.isascii() and text.isprintable() else quoted(text, 8 * _NAME)[1:-1]
