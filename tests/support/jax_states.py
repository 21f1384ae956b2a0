"""Arrays of jax in checkpoints: checks for a process of their own, since jax's threads are in the
way of every fork that comes after them.

Started as `python -m tests.support.jax_states CHECK`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from keisei import CheckpointError
from keisei.checkpoints.packing import pack
from tests.support.packed_states import read_back, round_trip, saved

KINDS = (
    "bool int8 int16 int32 uint8 uint32 float16 float32 bfloat16 float8_e4m3fn complex64".split()
)


def kinds() -> None:
    """Bits, dtype and shape are the same, for none, one and many items."""
    import jax

    for copy in (True, False):
        state = {
            f"{kind} {shape}": jax.numpy.ones(shape, kind)
            for kind in KINDS
            for shape in [(), (1,), (2, 3), (0, 2)]
        }
        back = round_trip(state, copy=copy)
        for name, array in state.items():
            assert isinstance(back[name], jax.Array)
            assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
            assert np.asarray(back[name]).tobytes() == np.asarray(array).tobytes()


def donated() -> None:
    """What a transformed function does to its donated argument does not reach what was packed."""
    import jax

    array = jax.numpy.zeros(1000)
    packed = pack({"a": array}, copy=True)
    jax.jit(lambda x: x + 1, donate_argnums=0)(array).block_until_ready()
    assert dict(packed.arrays)["a"].source.sum() == 0


def wide() -> None:
    """An array of 64 bits is never cut to 32: without jax_enable_x64 it is numpy's."""
    import jax

    with tempfile.TemporaryDirectory() as into:
        jax.config.update("jax_enable_x64", True)
        manifest = saved(Path(into), {"a": jax.numpy.ones(2, "float64")})
        assert isinstance(read_back(Path(into), manifest)["a"], jax.Array)
        jax.config.update("jax_enable_x64", False)
        back = read_back(Path(into), manifest)["a"]
        assert type(back) is np.ndarray
        assert back.dtype == np.float64


def absent() -> None:
    """Without jax an array of its is one of numpy."""
    import jax

    with tempfile.TemporaryDirectory() as into:
        manifest = saved(Path(into), {"a": jax.numpy.ones(2, "bfloat16")})
        del sys.modules["jax"]
        assert type(read_back(Path(into), manifest)["a"]) is np.ndarray


def refused() -> None:
    """A key, a deleted array and what is traced have no value that could be saved."""
    import jax

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


CHECKS = {check.__name__: check for check in (kinds, donated, wide, absent, refused)}

if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
    print("checked", sys.argv[1])
