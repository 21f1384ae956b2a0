"""Tensors come back as tensors, and an optimizer that was restored goes on bit for bit."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keisei import CheckpointError, MissingExtraError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints import dtypes, random_states
from keisei.checkpoints.digests import PLAIN
from keisei.checkpoints.packing import STATE, pack, write_packed
from tests.support.packed_states import manifest_of, read_back, round_trip, saved

torch = pytest.importorskip("torch", reason="torch is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
]
KINDS = [name for name in dtypes.TORCH if hasattr(torch, name)]


def filled(dtype: str, shape: tuple[int, ...]) -> Any:
    """Make a tensor of bits that are all different, as far as its kind has them."""
    kind = getattr(torch, dtype)
    count = int(np.prod(shape)) * kind.itemsize
    bits = torch.arange(count, dtype=torch.int32).to(torch.uint8) % (2 if dtype == "bool" else 16)
    return bits.view(kind).reshape(shape) if count else torch.empty(shape, dtype=kind)


def same(left: Any, right: Any) -> bool:
    """Return whether two tensors have one kind, one shape and the same bits."""
    if (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    flat = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (left, right)]
    return bool(torch.equal(*flat))


@pytest.mark.requirement("CKPT-1")
@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("dtype", KINDS)
def test_every_kind_of_tensor(dtype: str, copy: bool) -> None:
    """Its bits, dtype and shape are the same, for none, one and many items."""
    shapes: list[tuple[int, ...]] = [(), (1,), (5,), (2, 3, 4), (0,), (3, 0, 2)]
    state = {str(shape): filled(dtype, shape) for shape in shapes}
    back = round_trip(state, copy=copy)
    for name, tensor in state.items():
        assert type(back[name]) is torch.Tensor
        assert same(back[name], tensor), name


@pytest.mark.parametrize("copy", [True, False])
def test_every_layout_of_tensors(copy: bool) -> None:
    """Views, lazily conjugated ones and parameters are saved by their items."""
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    complex_ones = torch.randn(4, dtype=torch.complex64)
    state = {
        "strided": base[:, ::2, 1:4],
        "transposed": base.transpose(0, 2),
        "expanded": base[0].expand(2, 4, 5),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conjugated": complex_ones.conj(),
        "negated": complex_ones.conj().imag,
        "parameter": torch.nn.Parameter(base[0]),
        "graph": (base[0].clone().requires_grad_() * 2),
    }
    back = round_trip(state, copy=copy)
    for name, tensor in state.items():
        assert type(back[name]) is torch.Tensor
        assert torch.equal(back[name], tensor.detach()), name
        assert not back[name].requires_grad
        back[name].add_(1)  # its memory is its own, and may be written


@pytest.mark.requirement("CKPT-4")
def test_a_copied_tensor_may_change_afterwards(tmp_path: Path) -> None:
    """The optimizer's next step, in the same memory, does not reach what was packed."""
    tensor = torch.zeros(10)
    packed = pack({"a": tensor, "b": tensor[::2]}, copy=True)
    tensor.fill_(1)
    assert [held.source.sum().item() for _, held in packed.arrays] == [0, 0]


def trained(steps: int, start: dict[str, Any] | None = None) -> tuple[list[Any], dict[str, Any]]:
    """Train a small model from a state, and return its weights and its state."""
    torch.manual_seed(1)
    layers = [
        torch.nn.Linear(4, 8),
        torch.nn.BatchNorm1d(8),
        torch.nn.Dropout(),
        torch.nn.Linear(8, 1),
    ]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.8, 0.99), amsgrad=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    if start is not None:
        model.load_state_dict(start["model"])
        optimizer.load_state_dict(start["optimizer"])
        schedule.load_state_dict(start["schedule"])
        random_states.put_back(start["random"])
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
        schedule.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": random_states.take(),
    }
    return [tensor.detach().clone() for tensor in model.state_dict().values()], state


@pytest.mark.requirement("CKPT-1", "CKPT-6")
@pytest.mark.parametrize("copy", [True, False])
def test_an_optimizer_goes_on_bit_for_bit(copy: bool) -> None:
    """Adam with its steps, a schedule and dropout: five steps more are the same five steps."""
    _, state = trained(5)
    back = round_trip(state, copy=copy)
    assert type(back["model"]) is OrderedDict
    assert vars(back["model"]) == vars(state["model"])  # the versions of its modules
    group = back["optimizer"]["param_groups"][0]
    assert group == state["optimizer"]["param_groups"][0]
    assert list(back["optimizer"]["state"]) == list(state["optimizer"]["state"])  # they are ints
    assert type(group["betas"]) is tuple
    weights, _ = trained(10)
    again, _ = trained(5, back)
    assert all(map(torch.equal, weights, again))


def test_tensors_that_cannot_be_kept() -> None:
    """Each is refused with its keys and a way out."""
    refused = {
        "never had any": torch.empty(3, device="meta"),
        "plain tensor": torch.eye(3).to_sparse(),
        "as another kind": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        r"str\(value\)": torch.device("cpu"),
        r"state_dict\(\)": torch.nn.Linear(1, 1),
        r"get_state\(\)": torch.Generator(),
        r"tuple\(value\)": torch.Size([1]),
    }
    for says, value in refused.items():
        with pytest.raises(CheckpointError, match=rf"^state\['a'\].*{says}"):
            pack({"a": value}, copy=True)
    with pytest.raises(CheckpointError, match="its key is"):
        pack({torch.ones(1): 1}, copy=True)


def test_a_tensor_that_is_gone_when_it_is_written(tmp_path: Path) -> None:
    """Without a copy the program keeps it until then; else the save fails, and says so."""
    tensor = torch.ones(3)
    packed = pack({"a": tensor}, copy=False)
    tensor.untyped_storage().resize_(0)
    says = "'a' can no longer be read.*copy=True"
    with OpenDirectory(str(tmp_path)) as directory, pytest.raises(CheckpointError, match=says):
        write_packed(directory, STATE, packed, PLAIN)
    with pytest.raises(CheckpointError, match="freed"):
        pack({"a": tensor}, copy=True)


def test_without_torch_a_tensor_is_an_array_of_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that only looks needs no torch, except for kinds that numpy does not know."""
    state = {name: filled(name, (2, 3)) for name in KINDS if name != "complex32"}
    manifest = saved(tmp_path, state)
    half = saved(tmp_path / "half", {"a": filled("complex32", (2,))})
    monkeypatch.delitem(sys.modules, "torch")
    back = read_back(tmp_path, manifest)
    for name, tensor in state.items():
        assert type(back[name]) is np.ndarray
        assert back[name].dtype.name == name
        assert back[name].tobytes() == bytes(tensor.reshape(-1).view(torch.uint8).tolist())
    with pytest.raises(MissingExtraError, match="import torch"):
        read_back(tmp_path / "half", half)


def test_a_kind_of_tensor_from_somebody_else(tmp_path: Path) -> None:
    """A name in torch that is no dtype is not looked up."""
    manifest = saved(tmp_path, {"a": torch.ones(2)})
    for dtype in ("load", "float", "qint8", "bits8", "__name__", "<f4"):
        wrong = [entry._replace(dtype=dtype) for entry in manifest.arrays]
        with pytest.raises(CheckpointError) as caught:
            read_back(tmp_path, manifest_of(manifest.files, wrong))
        assert caught.value.corrupt


@pytest.mark.requirement("CKPT-6")
def test_the_random_states_of_torch_come_back() -> None:
    """What is drawn after a restore is what was drawn after the save."""
    states = round_trip(random_states.take())
    drawn = torch.rand(3)
    assert "torch" in random_states.put_back(states)
    assert torch.equal(torch.rand(3), drawn)


def test_a_program_that_has_not_imported_torch_does_not_import_it(tmp_path: Path) -> None:
    """Neither saving nor restoring brings it, and random states of it are left out."""
    code = (
        "import sys, numpy\n"
        "from keisei.checkpoints import random_states\n"
        "from tests.support.packed_states import round_trip\n"
        "states = random_states.take()\n"
        "round_trip({'a': numpy.ones(3), 'b': states})\n"
        "states.update(torch=b'1', cuda=[b'1'])\n"
        "print(random_states.put_back(states), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "('random', 'numpy') False\n"
