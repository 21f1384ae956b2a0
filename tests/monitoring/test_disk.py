"""How large a run is, and how full its disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keisei.monitoring import host
from keisei.monitoring.host import DiskSource


def _tree(where: Path) -> int:
    for number in range(20):
        (where / f"d{number}").mkdir(parents=True)
        for name in ("a", "b"):
            (where / f"d{number}" / name).write_bytes(b"x" * 100)
    os.symlink("/", where / "link")
    return 40 * 100 + os.lstat(where / "link").st_size


def test_a_runs_size_is_that_of_its_files_and_of_no_link(tmp_path: Path) -> None:
    """Links are not followed, and the disk's free room comes with it."""
    size = _tree(tmp_path / "run")
    source = DiskSource()
    source.directories = {"1": str(tmp_path / "run"), "2": str(tmp_path / "gone")}
    reading = source.read()
    assert reading.runs["1"]["run_bytes"] == size
    assert reading.runs["1"]["disk.free_bytes"] > 0
    assert "2" not in reading.runs
    assert not reading.problems


def test_a_large_run_is_looked_through_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reading takes long for it; its size is known when all was seen."""
    size = _tree(tmp_path / "run")
    monkeypatch.setattr(host, "_SIZE_SHARE", 0.0)
    source = DiskSource()
    source.directories = {"1": str(tmp_path / "run")}
    readings = [source.read().runs["1"] for _ in range(60)]
    assert "run_bytes" not in readings[0]
    assert "disk.used" in readings[0]
    assert readings[-1]["run_bytes"] == size
