"""Which devices a program may use, as CUDA decides it."""

from __future__ import annotations

import pytest

from keisei.monitoring.visible import Device, chosen_in, visible

A, B = Device(0, "GPU-aa11", None, "GPU-aa11"), Device(1, "GPU-aa22", None, "GPU-aa22")
FIRST = Device(2, "MIG-1111", 0, "GPU-bb33")
SECOND = Device(2, "MIG-2222", 1, "GPU-bb33")
OLD = Device(3, "MIG-GPU-cc44/1/0", 0, "GPU-cc44")
ALL = [A, B, FIRST, SECOND, OLD]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (None, ALL),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,0", [B, A]),
        ("0, 0", [A]),
        ("2", [FIRST, SECOND]),
        ("GPU-aa11", [A]),
        ("GPU-aa2", [B]),
        ("GPU-aa", []),
        ("MIG-2222,GPU-aa22", [SECOND, B]),
        ("MIG-", []),
        ("GPU-bb33", [FIRST, SECOND]),
        ("MIG-GPU-cc44/1/0", [OLD]),
        ("MIG-GPU-cc44/2/0", []),
        ("0,9,1", [A]),
        ("GPU-aa11,GPU-zz,1", [A]),
    ],
)
def test_the_variable_names_numbers_uuids_and_their_beginnings(
    chosen: str | None, found: list[Device]
) -> None:
    """What comes after an entry that names no device does not count, as in CUDA."""
    assert visible(ALL, chosen) == found


def test_the_first_variable_that_is_set_counts() -> None:
    """An empty one is set."""
    environ = {"B": "", "C": "1"}
    assert chosen_in(environ, ["A", "B", "C"]) == ""
    assert chosen_in(environ, ["A"]) is None


def test_labels_name_gpu_and_instance() -> None:
    """They are the middle of the metrics' names."""
    assert [device.label for device in (B, SECOND)] == ["gpu.1", "gpu.2.mig.1"]
