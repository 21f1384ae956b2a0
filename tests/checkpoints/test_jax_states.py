"""Arrays of jax come back as arrays of jax, where it is imported."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from keisei import CheckpointError
from keisei.checkpoints.packing import pack
from tests.support.packed_states import read_back, round_trip, saved

jax = pytest.importorskip("jax", reason="jax is not installed")

KINDS = (
    "bool int8 int16 int32 uint8 uint32 float16 float32 bfloat16 float8_e4m3fn complex64".split()
)


@pytest.mark.requirement("CKPT-1")
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("dtype", KINDS)
def test_every_kind_of_jax_array(dtype: str, copy: bool) -> None:
    """Its bits, dtype and shape are the same, for none, one and many items."""
    state = {str(shape): jax.numpy.ones(shape, dtype) for shape in [(), (1,), (2, 3), (0, 2)]}
    back = round_trip(state, copy=copy)
    for name, array in state.items():
        assert isinstance(back[name], jax.Array)
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert np.asarray(back[name]).tobytes() == np.asarray(array).tobytes()


def test_a_copied_array_may_be_donated() -> None:
    """What a transformed function does to its donated argument does not reach what was packed."""
    array = jax.numpy.zeros(1000)
    packed = pack({"a": array}, copy=True)
    jax.jit(lambda x: x + 1, donate_argnums=0)(array).block_until_ready()
    assert dict(packed.arrays)["a"].source.sum() == 0


@pytest.mark.filterwarnings("ignore:.*enable_x64")
def test_items_that_the_settings_do_not_have_stay_numpys(tmp_path: Path) -> None:
    """An array of 64 bits is never cut to 32: without jax_enable_x64 it is numpy's."""
    jax.config.update("jax_enable_x64", True)
    try:
        manifest = saved(tmp_path, {"a": jax.numpy.ones(2, "float64")})
    finally:
        jax.config.update("jax_enable_x64", False)
    back = read_back(tmp_path, manifest)["a"]
    assert type(back) is np.ndarray
    assert back.dtype == np.float64


def test_without_jax_it_is_an_array_of_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that only looks needs no jax."""
    manifest = saved(tmp_path, {"a": jax.numpy.ones(2, "bfloat16")})
    monkeypatch.delitem(sys.modules, "jax")
    assert type(read_back(tmp_path, manifest)["a"]) is np.ndarray


def test_jax_arrays_without_a_value_are_refused() -> None:
    """A key, a deleted array and what is traced have no value that could be saved."""
    gone = jax.numpy.ones(3)
    gone.delete()
    for value in (jax.random.key(0), gone):
        with pytest.raises(CheckpointError, match=r"^state\['a'\].*key_data"):
            pack({"a": value}, copy=True)

    def traced(x: object) -> object:
        with pytest.raises(CheckpointError, match="outside of transformed functions"):
            pack({"a": x}, copy=True)
        return x

    jax.jit(traced)(jax.numpy.ones(2))
    assert round_trip({"a": jax.random.key_data(jax.random.key(1))})["a"].shape == (2,)
