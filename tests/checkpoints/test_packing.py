"""Files that are not what the manifest says: one error, bounded memory, nothing executed."""

from __future__ import annotations

import json
import os
import pickle
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keisei import CheckpointError, MissingExtraError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints import digests, failing, random_states, tensors
from keisei.checkpoints.digests import FAST, PLAIN, new_digest
from keisei.checkpoints.manifest import LARGEST, ArrayEntry, FileEntry, Manifest
from keisei.checkpoints.packing import ARRAYS, RANDOM, STATE, pack, read_packed, write_packed
from keisei.checkpoints.streams import CHUNK, Sink, Source
from keisei.errors import KeiseiError
from tests.support.packed_states import manifest_of, read_back, saved

STATE_OF = {"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.ones(3, "<i8"), "c": [1, "x"]}


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, Manifest]:
    """A state in a directory, and its manifest."""
    return tmp_path, saved(tmp_path, STATE_OF)


def put(path: Path, name: str, data: bytes) -> FileEntry:
    """Write a file and return an entry that fits it, as anybody can make one."""
    (path / name).write_bytes(data)
    digest = new_digest(PLAIN)
    digest.update(data)
    return FileEntry(name, len(data), digest.hexdigest())


def refused(path: Path, manifest: Manifest) -> CheckpointError:
    """Return the error that reading raises."""
    with pytest.raises(CheckpointError) as caught, failing.reading(str(path)):
        read_back(path, manifest)
    assert caught.value.corrupt
    assert len(str(caught.value)) < 500
    return caught.value


def with_files(manifest: Manifest, **changed: FileEntry) -> Manifest:
    """Return a manifest with other entries of files, by their first letter."""
    files = [changed.get(entry.name[0], entry) for entry in manifest.files]
    return manifest_of(files, manifest.arrays)


@pytest.mark.requirement("CKPT-3")
@pytest.mark.parametrize("algorithm", digests.ALGORITHMS)
def test_each_flipped_byte_is_found(tmp_path: Path, algorithm: str) -> None:
    """No byte of the files is without a digest, by either algorithm."""
    with OpenDirectory(str(tmp_path)) as directory:
        entries = write_packed(directory, STATE, pack(STATE_OF, copy=True), algorithm)
        manifest = manifest_of(*entries, algorithm=algorithm)
        for name in ("state.json", ARRAYS):
            whole = (tmp_path / name).read_bytes()
            for i in range(len(whole)):
                (tmp_path / name).write_bytes(
                    whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :]
                )
                with pytest.raises(CheckpointError) as caught:
                    read_packed(directory, STATE, manifest)
                assert caught.value.corrupt
            (tmp_path / name).write_bytes(whole)
        assert read_packed(directory, STATE, manifest).keys() == STATE_OF.keys()


@pytest.mark.parametrize("name", ["state.json", ARRAYS])
def test_a_file_that_is_missing_or_no_file(written: tuple[Path, Manifest], name: str) -> None:
    """A file that is gone is corrupt; a link is not followed, and a pipe not waited for."""
    path, manifest = written
    data = (path / name).read_bytes()
    (path / name).unlink()
    assert name in str(refused(path, manifest))
    elsewhere = path / "elsewhere"
    elsewhere.write_bytes(data)
    (path / name).symlink_to(elsewhere)
    assert name in str(refused(path, manifest))
    (path / name).unlink()
    (path / name).mkdir()
    refused(path, manifest)
    (path / name).rmdir()
    os.mkfifo(path / name)
    refused(path, manifest)


def test_a_manifest_without_the_file_of_the_state(written: tuple[Path, Manifest]) -> None:
    """Every file that is read has an entry."""
    path, manifest = written
    for kept in ([], manifest.files[:1], manifest.files[1:]):
        refused(path, manifest_of(kept, manifest.arrays))


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b: [b],
        lambda a, b: [a, b],
        lambda a, b: [b, a, b._replace(name="c")],
        lambda a, b: [b, a._replace(name="x")],
        lambda a, b: [b, a._replace(shape=(3, 3))],
        lambda a, b: [b, a._replace(shape=(6,))],
        lambda a, b: [b, a._replace(shape=())],
        lambda a, b: [b, a._replace(shape=(2**62, 2**62))],
        lambda a, b: [b, a._replace(shape=(0, 2**62))],
        lambda a, b: [b, a._replace(dtype="<i4")],
        lambda a, b: [b, a._replace(dtype="<f8")],
        lambda a, b: [b, a._replace(dtype="|V999999999")],
        lambda a, b: [b, a._replace(dtype="|O8")],
        lambda a, b: [b, a._replace(library="bytes")],
        lambda a, b: [b, a._replace(library="bytes", dtype="bytes")],
        lambda a, b: [b, a._replace(library="torch")],
    ],
    ids=range(16),
)
def test_a_manifest_whose_arrays_are_not_the_files(
    written: tuple[Path, Manifest], change: Callable[[ArrayEntry, ArrayEntry], list[ArrayEntry]]
) -> None:
    """Names, shapes, kinds and order have to be those of the file, before memory is given."""
    path, manifest = written
    b, a = manifest.arrays
    refused(path, manifest_of(manifest.files, change(a, b)))


def header(file: bytes) -> Any:
    """Return the header of a safetensors file."""
    return json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h | {"a": h["a"] | {"data_offsets": [0, 24]}},
        lambda h: h | {"a": h["a"] | {"data_offsets": [24, 2**64]}},
        lambda h: h | {"a": h["a"] | {"data_offsets": [-24, 0]}},
        lambda h: h | {"a": h["a"] | {"shape": [2**64, 0]}},
        lambda h: h | {"a": h["a"] | {"dtype": "I32"}},
        lambda h: h | {"__metadata__": {"x": "y"}},
        lambda h: {"a": h["a"]},
        lambda h: [],
    ],
    ids=range(8),
)
def test_another_header_of_the_arrays(
    written: tuple[Path, Manifest], change: Callable[[Any], Any]
) -> None:
    """Offsets that overlap, climb or lie are not those that the manifest tells."""
    path, manifest = written
    file = (path / ARRAYS).read_bytes()
    length = int.from_bytes(file[:8], "little")
    text = json.dumps(change(header(file)), separators=(",", ":")).encode()
    text = text.ljust(length)
    other = len(text).to_bytes(8, "little") + text + file[8 + length :]
    refused(path, with_files(manifest, a=put(path, ARRAYS, other)))


@pytest.mark.parametrize(
    "file", [b"", b"\xff" * 8, b"\xff" * 100, (2**63).to_bytes(8, "little") + b"{}", b"\0" * 200]
)
def test_a_file_of_arrays_that_is_none(written: tuple[Path, Manifest], file: bytes) -> None:
    """A length that lies is never given memory."""
    path, manifest = written
    refused(path, with_files(manifest, a=put(path, ARRAYS, file)))


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"1", b"null", b"[" * 100_000, b'{"a":NaN}', b'{"$":"tuple","v":[]}',
        b'{"a":{"$":"array","v":"zz"}}', b'{"a":{"$":"array"}}', b'{"a":{"$":"array","v":[]}}',
        b'{"a":{"$":"scalar"}}', b'{"a":{"$":"scalar","dtype":"|O8","v":"0000000000000000"}}',
        b'{"a":{"$":"scalar","dtype":"<f4","v":"00"}}', b'{"a":{"$":"scalar","dtype":[],"v":"00"}}',
        b'{"a":{"$":"scalar","dtype":"<f4","v":1}}', b'{"a":{"$":"scalar","dtype":"str","v":"ff"}}',
        b'{"a":{"$":"scalar","dtype":"|V999999999","v":""}}',
        b'{"a":{"$":"pickle","v":"gASVAAAA"}}',
        b'{"$":"dict","v":[{"$":"array","v":"a"},1]}',
    ],
    ids=lambda text: ascii(text[:40]),
)  # fmt: skip
def test_a_state_from_somebody_else(written: tuple[Path, Manifest], text: bytes) -> None:
    """Whatever has a digest that fits and no sense is the same error."""
    path, manifest = written
    refused(path, with_files(manifest, s=put(path, "state.json", text)))


def test_sizes_that_lie_are_given_no_memory(written: tuple[Path, Manifest]) -> None:
    """A manifest that claims much is refused by what the files have."""
    path, manifest = written
    huge = [entry._replace(size=2**50) for entry in manifest.files]
    many = [entry._replace(shape=(2**40,)) for entry in manifest.arrays]
    tracemalloc.start()
    try:
        refused(path, manifest_of(huge, manifest.arrays))
        refused(path, manifest_of(manifest.files, many))
        (path / "state.json").write_bytes(b"")
        os.truncate(path / "state.json", LARGEST + 1)  # sparse
        longest = [FileEntry("state.json", LARGEST + 1, "0" * 32), *manifest.files[1:]]
        assert "longer than" in str(refused(path, manifest_of(longest, manifest.arrays)))
        assert tracemalloc.get_traced_memory()[1] < 8 * CHUNK
    finally:
        tracemalloc.stop()


def test_arrays_longer_than_the_file_are_given_no_memory(written: tuple[Path, Manifest]) -> None:
    """Manifest and header may agree on what is not there."""
    path, manifest = written
    many = [ArrayEntry("a", "<f4", (2**45,), "numpy")]
    text = tensors.header(many, [2**47])
    file = put(path, ARRAYS, text)
    assert "another length" in str(refused(path, manifest_of([manifest.files[0], file], many)))


def test_what_could_not_be_read_again_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than a reader takes is an error of the save."""
    monkeypatch.setattr("keisei.checkpoints.packing.LARGEST", 1000)
    with pytest.raises(CheckpointError, match="long lists of numbers as arrays"):
        pack({"a": list(range(1000))}, copy=True)


def test_without_xxhash_digests_are_blake2b(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save needs no extra; a checkpoint with the other digests says what it needs."""
    assert digests.best_algorithm() == FAST
    with OpenDirectory(str(tmp_path)) as directory:
        packed = pack({"a": np.ones(3)}, copy=True)
        manifest = manifest_of(*write_packed(directory, STATE, packed, FAST), algorithm=FAST)
        monkeypatch.setitem(sys.modules, "xxhash", None)
        assert digests.best_algorithm() == PLAIN
        with pytest.raises(MissingExtraError, match=r"keisei\[checkpoints\]"):
            read_packed(directory, STATE, manifest)
    with pytest.raises(ValueError, match="md5"):
        new_digest("md5")


def test_without_numpy_arrays_are_not_read(
    written: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra, and does not call the checkpoint corrupt."""
    path, manifest = written
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtraError, match=r"keisei\[checkpoints\]"):
        read_back(path, manifest)
    plain = saved(path / "plain", {"a": [1, (2,)]})
    assert read_back(path / "plain", plain) == {"a": [1, (2,)]}


def test_nothing_that_stands_there_is_written_over(tmp_path: Path) -> None:
    """A file or a link under the name is an error of the system, and stays as it is."""
    (tmp_path / "elsewhere").write_bytes(b"1")
    (tmp_path / "state.json").symlink_to(tmp_path / "elsewhere")
    with OpenDirectory(str(tmp_path)) as directory, pytest.raises(FileExistsError):
        write_packed(directory, STATE, pack({}, copy=True), PLAIN)
    assert (tmp_path / "elsewhere").read_bytes() == b"1"


@pytest.mark.parametrize("stable", [True, False])
def test_streams_of_any_lengths(tmp_path: Path, stable: bool) -> None:
    """Pieces shorter and longer than a chunk are one file, read by pieces of other lengths."""
    pieces = [b"", b"a", b"b" * (CHUNK - 2), b"cd", b"e" * (2 * CHUNK + 5), b"f" * CHUNK, b"g"]
    whole = b"".join(pieces)
    with OpenDirectory(str(tmp_path)) as directory:
        with Sink(directory, "x", PLAIN) as sink:
            for piece in pieces:
                sink.add(memoryview(piece), stable=stable)
            entry = sink.end()
        assert (tmp_path / "x").read_bytes() == whole
        with Source(directory, entry, PLAIN) as source:
            found = b""
            for length in (1, CHUNK, 3, 2 * CHUNK + 1, len(whole) - 3 * CHUNK - 5):
                part = bytearray(length)
                source.read(memoryview(part))
                found += part
            source.end()
            assert found == whole
            with pytest.raises(CheckpointError, match="ends too early"):
                source.read(memoryview(bytearray(1)))
        with Source(directory, entry, PLAIN) as source:
            source.read(memoryview(bytearray(10)))
            with pytest.raises(CheckpointError, match="more bytes"):
                source.end()


def test_random_states_have_no_arrays(tmp_path: Path) -> None:
    """They are in one file, beside the arrays of the state."""
    packed = pack(random_states.take(), copy=True)
    assert packed.arrays == []
    with OpenDirectory(str(tmp_path)) as directory:
        write_packed(directory, STATE, pack(STATE_OF, copy=True), PLAIN)
        files, arrays = write_packed(directory, RANDOM, packed, PLAIN)
        assert arrays == []
        states = read_packed(directory, RANDOM, manifest_of(files, []))
    assert states.keys() >= {"random", "numpy"}


def test_a_hundred_thousand_leaves(tmp_path: Path) -> None:
    """Many small values and many small arrays come back, each under its keys."""
    values = {f"m{i}": {f"k{j}": (i, j / 3) for j in range(50)} for i in range(1000)}
    many = {"values": values, "arrays": {i: np.full(2, i, "<i4") for i in range(5000)}}
    back = read_back(tmp_path, saved(tmp_path, many))
    assert back["values"] == values
    assert all(back["arrays"][i].tolist() == [i, i] for i in range(5000))


def test_secrets_are_kept_as_they_are(tmp_path: Path) -> None:
    """A checkpoint is the user's own data: what goes in comes out."""
    state = {"api_key": "sk-0123456789abcdef0123456789abcdef", "url": "https://u:secret@host/"}
    assert read_back(tmp_path, saved(tmp_path, state)) == state
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


def test_the_error_is_of_the_tree_and_pickles() -> None:
    """It is a RuntimeError, too, and keeps its path and whether the disk is to blame."""
    error = pickle.loads(pickle.dumps(CheckpointError("a", path="/x", corrupt=True)))
    assert {KeiseiError, RuntimeError} < set(type(error).__mro__)
    assert (error.path, error.corrupt) == ("/x", True)
