"""Arrays of numpy come back to the last bit, whatever their layout; safetensors reads the file."""

from __future__ import annotations

import math
import sys
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from keisei import CheckpointError, MissingExtraError
from keisei.checkpoints import arrays, dtypes
from keisei.checkpoints.packing import ARRAYS, pack
from tests.support.packed_states import read_back, round_trip, same, saved

PLAIN = "? b B h H i I l L q Q e f d F D".split()
ODD = [
    ">i2",
    ">f8",
    ">c16",
    ">U4",
    "<M8[ns]",
    "<M8[25s]",
    ">m8[D]",
    "<M8",
    "S7",
    "U3",
    "V5",
    "g",
    "G",
]
# Two types of numpy's are one kind of items, and come back as the one that has its name.
KINDS_OF_SCALARS = [*(kind for kind in PLAIN if kind not in "qQ"), *ODD[4:-2]]
INNER = [("x", "<f4"), ("y", ">i2", (2, 3))]
STRUCTURES = [
    np.dtype([("a", "<i4"), ("b", INNER), ("é/$", "S3", 2)]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype({"names": ["a", "b"], "formats": ["<i4", "<i2"], "offsets": [0, 2], "itemsize": 16}),
    np.dtype([("", "f4"), ("t", "<M8[ms]"), ("low", ml_dtypes.bfloat16)]),
]


def filled(dtype: Any, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Make an array of bits that are all different, as far as its kind has them."""
    kind = np.dtype(dtype)
    if kind.char in "?gG" or kind.itemsize == 0:  # whose other bits mean nothing
        return np.ones(shape, kind)
    count = math.prod(shape) * kind.itemsize
    bits = np.arange(count, dtype=np.uint32).astype(np.uint8) % (2 if kind.kind == "U" else 16)
    if kind.kind == "U":
        bits[1:] = 0
    made = np.zeros(shape, kind)
    if count:
        made[...] = np.ndarray(shape, kind, bits.tobytes())  # and nothing between the fields
    return made


@pytest.mark.requirement("CKPT-1")
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(
    "dtype", [*PLAIN, *ODD, *STRUCTURES, *dtypes.EXTENDED], ids=lambda dtype: str(dtype)[:20]
)
def test_every_kind_of_items(dtype: Any, copy: bool) -> None:
    """Bytes, byte order, dtype and shape are the same, for none, one and many items."""
    shapes: list[tuple[int, ...]] = [(), (1,), (5,), (2, 3, 4), (0,), (3, 0, 2)]
    state = {str(shape): filled(dtype, shape) for shape in shapes}
    back = round_trip(state, copy=copy)
    for name, array in state.items():
        assert same(back[name], array), name
        assert back[name].flags.writeable
        assert back[name].flags.owndata or back[name].base is not None


@pytest.mark.requirement("CKPT-1")
def test_scalars_of_numpy() -> None:
    """They are no floats or strings of Python's, and come back as what they were."""
    values: list[Any] = [filled(kind, (2,))[1] for kind in KINDS_OF_SCALARS]
    values += [filled(kind, (2,))[1] for kind in STRUCTURES]
    values += [np.str_("a\0"), np.bytes_(b"\0"), np.str_("\ud800"), np.float64("nan")]
    values += [kind(1) for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.int4)]
    for value, back in zip(values, round_trip({"values": values})["values"], strict=True):
        assert type(back) is type(value)
        assert same(back, value)


@pytest.mark.parametrize("copy", [True, False])
def test_every_layout(copy: bool, tmp_path: Path) -> None:
    """Views, transposed, reversed, read-only and mapped arrays are saved by their items."""
    base = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
    frozen = base.copy()
    frozen.flags.writeable = False
    mapped = np.memmap(tmp_path / "mapped", np.int32, "w+", shape=base.shape)
    mapped[:] = base
    state = {
        "strided": base[:, ::2, 1:4],
        "reversed": base[::-1],
        "transposed": base.T,
        "fortran": np.asfortranarray(base),
        "broadcast": np.broadcast_to(base[0], (2, 4, 5)),
        "frozen": frozen,
        "mapped": mapped,
        "mapped part": mapped[1:, ::2],
    }
    back = round_trip(state, copy=copy)
    for name, array in state.items():
        assert type(back[name]) is np.ndarray
        assert same(back[name], np.ascontiguousarray(array)), name


@pytest.mark.requirement("CKPT-1")
@pytest.mark.parametrize("copy", [True, False])
def test_what_lies_between_the_fields_of_a_structure_is_nothing(copy: bool) -> None:
    """Equal arrays are written as equal bytes, whatever their memory held before."""
    inner = np.dtype([("a", "u1"), ("b", "<f8")], align=True)
    for kind in (inner, np.dtype([("c", inner, (2,))])):
        memories = [np.full(3 * kind.itemsize, fill, np.uint8).view(kind) for fill in (0, 255)]
        for memory in memories:
            memory[...] = np.zeros((), kind)
        for values in (memories, [memory[::2] for memory in memories], [m[0] for m in memories]):
            packed = [pack({"v": value}, copy=copy) for value in values]
            assert packed[0].text == packed[1].text
            first, second = (
                [bytes(arrays.host_bytes(h)) for _, h in each.arrays] for each in packed
            )
            assert first == second


@pytest.mark.requirement("CKPT-4")
def test_a_copy_is_made_at_once_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """With it the array may change afterwards, mapped or not; without it the memory is shared."""
    array = np.zeros(10)
    mapped = np.memmap(tmp_path / "mapped", np.int32, "w+", shape=(4,))
    copied = pack({"a": array, "m": mapped}, copy=True)
    shared = pack({"a": array, "m": mapped}, copy=False)
    array[:] = mapped[:] = 1
    assert [held.source.sum() for _, held in copied.arrays] == [0, 0]
    assert [held.source.sum() for _, held in shared.arrays] == [10, 4]
    assert copied.nbytes == shared.nbytes == 80 + 16 + len("".join(copied.text))


def test_what_changes_while_it_is_written_verifies(tmp_path: Path) -> None:
    """The digest is of the very bytes that were written, whoever writes to the array meanwhile."""
    array = np.zeros(1 << 22, dtype=np.uint8)
    over = threading.Event()

    def change() -> None:
        value = 0
        while not over.is_set():
            value = (value + 1) % 256
            array.fill(value)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for number in range(3):
            manifest = saved(tmp_path / str(number), {"a": array}, copy=False)
            assert read_back(tmp_path / str(number), manifest)["a"].shape == array.shape
    finally:
        over.set()
        writer.join()


def test_the_file_is_one_that_safetensors_reads(tmp_path: Path) -> None:
    """Its library finds the arrays by their keys; what it has no name for lies there as bytes."""
    state: dict[Any, Any] = {
        "model": {"layers/0": np.arange(6, dtype=np.float32).reshape(2, 3), "~": np.ones(1, "<f8")},
        "low": [np.arange(3).astype(ml_dtypes.bfloat16), np.ones((2, 0), np.int8)],
        1: np.arange(3) > 1,
        "big": np.arange(3, dtype=">i4"),
        "": np.ones(3, np.complex64),
        "__metadata__": np.ones(1, np.float32),
        "añ\n\ud800": np.zeros(1),
    }
    saved(tmp_path, state)
    found = load_file(tmp_path / ARRAYS)
    assert same(found["model/layers~10"], state["model"]["layers/0"])
    assert same(found["low/0"], state["low"][0])
    assert same(found["1"], state[1])
    assert found["big"].tobytes() == np.arange(3, dtype=">i4").tobytes()
    expected = ["1", "__metadata__~~2", "a\\xf1\\n\\ud800", "big", "low/0", "low/1"]
    assert sorted(found) == sorted([*expected, "model/layers~10", "model/~0", "~~2"])


def test_names_that_would_be_the_same(tmp_path: Path) -> None:
    """Each array has a name of its own, whatever its keys."""
    ones = [np.full(1, number) for number in range(6)]
    state = {1: ones[0], "1": ones[1], "a": {"b": ones[2]}, "a/b": ones[3], "a~1b": ones[4]}
    state |= {"x" * 300: ones[5], "x" * 301: ones[0]}
    manifest = saved(tmp_path, state)
    assert same(read_back(tmp_path, manifest), state)
    assert len({entry.name for entry in manifest.arrays}) == len(state)


def test_arrays_begin_at_their_alignment(tmp_path: Path) -> None:
    """A program that maps the file finds each array where its items may lie."""
    kinds = ["|u1", "<f8", "<f2", "<c16", "<U3", "<i4", "|b1", "<f8"]
    manifest = saved(tmp_path, {str(i): np.ones(3, kind) for i, kind in enumerate(kinds)})
    data = (tmp_path / ARRAYS).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 8 == 0
    for entry in manifest.arrays:
        size = np.dtype(entry.dtype).itemsize
        assert start % min(size & -size, 8) == 0, entry
        start += 3 * size
    assert start == len(data)


def test_arrays_without_bytes_alone(tmp_path: Path) -> None:
    """A state of empty arrays comes back."""
    state = {"a": np.zeros((0, 3)), "b": np.zeros((2, 0), "<U5")}
    assert same(round_trip(state), state)


@pytest.mark.parametrize(
    "text",
    [
        "", "O", "|O", "|O8", "<O8", "object", "f4", "=f4", "<f3", "<f4,<f4", "<U0", "|V0", "<i4 ",
        "<M8[]", "<M8[zz]", "<f4[s]", "|V99999999999", "bfloat17", "float32", "<f4\n", "{", "{}",
        "[]", '["<f4",[2]]',
        '{"align":false,"formats":["|O"],"itemsize":8,"names":["a"],"offsets":[0]}',
        '{"align":false,"formats":["<i4"],"itemsize":4,"names":["a"],"offsets":[4]}',
        '{"align":false,"formats":["<i4"],"itemsize":4,"names":["a"],"offsets":[-4]}',
        '{"align":false,"formats":["<i4"],"itemsize":4,"names":["a","b"],"offsets":[0]}',
        '{"align":false,"formats":[["<i4",[99999999999,99999999999]]],"itemsize":4,"names":["a"],'
        '"offsets":[0]}',
        '{"formats":' + "[" * 5000,
        '{"align":false,"formats":[' * 40,
    ],
    ids=range(31),
)  # fmt: skip
def test_a_kind_of_items_from_somebody_else(text: str) -> None:
    """Only the texts that keisei writes are kinds of items."""
    with pytest.raises(CheckpointError) as caught:
        dtypes.numpy_dtype(np, text)
    assert caught.value.corrupt


def test_what_numpy_knows_only_by_another_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the checkpoint is not called corrupt: the error names the package."""
    manifest = saved(tmp_path, {"a": np.ones(2, ml_dtypes.bfloat16)})
    arrays._numpy_kind.cache_clear()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingExtraError, match="ml_dtypes"):
        read_back(tmp_path, manifest)
