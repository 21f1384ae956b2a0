"""What cgroups of both versions say of what a process may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from keisei.monitoring import cgroups
from keisei.monitoring.allocation import Allocation

GIB = 2**30


def _tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.requirement("MON-1")
def test_version_2_limits_hold_from_any_level(tmp_path: Path) -> None:
    """The smallest quota and memory on the way up count, and an unlimited leaf takes none away."""
    root = _tree(
        tmp_path,
        {
            "proc/7/cgroup": "0::/job/step\n",
            "proc/7/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/job/cpu.max": "250000 100000\n",
            "sys/fs/cgroup/job/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/job/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/job/memory.stat": f"anon 1\ninactive_file {GIB}\n",
            "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
            "sys/fs/cgroup/job/step/cpuset.cpus.effective": "0-3,8-11\n",
            "sys/fs/cgroup/job/step/memory.max": f"{6 * GIB}\n",
            "sys/fs/cgroup/job/step/memory.current": f"{GIB}\n",
            "sys/fs/cgroup/job/step/cpu.stat": "usage_usec 5000000\nthrottled_usec 250000\n",
        },
    )
    allocation = Allocation(7, root)
    limits = allocation.limits(64, 512 * GIB)
    assert tuple(limits) == (2.5, 4 * GIB, "/sys/fs/cgroup/job")
    used = allocation.used(limits.memory_at)
    assert used.memory_bytes == 2 * GIB
    assert used.cpu == cgroups.CpuUse(5.0, 0.25)


@pytest.mark.requirement("MON-1")
def test_version_1_limits_are_those_of_each_hierarchy(tmp_path: Path) -> None:
    """Each controller has its own mount; what is mounted may be the container's own cgroup."""
    root = _tree(
        tmp_path,
        {
            "proc/7/cgroup": "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n3:cpuset:/docker/a\n",
            "proc/7/mountinfo": (
                "32 31 0:29 /docker/a /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
                "33 31 0:30 /docker/a /cg/memory rw - cgroup cgroup rw,memory\n"
                "34 31 0:31 / /cg/cpuset rw - cgroup cgroup rw,cpuset\n"
            ),
            "cg/cpu/cpu.cfs_quota_us": "150000\n",
            "cg/cpu/cpu.cfs_period_us": "100000\n",
            "cg/cpu/cpuacct.usage": "2500000000\n",
            "cg/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            "cg/memory/memory.usage_in_bytes": f"{GIB}\n",
            "cg/memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB // 2}\n",
            "cg/cpuset/docker/a/cpuset.cpus": "2\n",
        },
    )
    allocation = Allocation(7, root)
    limits = allocation.limits(64, 512 * GIB)
    assert tuple(limits) == (1.0, 2 * GIB, "/cg/memory")
    assert allocation.used(limits.memory_at) == (cgroups.CpuUse(2.5, 0.0), GIB // 2)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/7/cgroup": "0::/\n"},
        {"proc/7/cgroup": "nonsense\n", "proc/7/mountinfo": "a - b\n\n1 2 3\n"},
        {
            "proc/7/cgroup": "4:memory:/\n0::/\n",
            "proc/7/mountinfo": "1 1 0:1 / /cg rw - cgroup cgroup rw,memory\n",
            "cg/memory.limit_in_bytes": "9223372036854771712\n",
            "cg/memory.usage_in_bytes": "no number\n",
        },
    ],
)
def test_without_limits_the_host_is_the_allocation(tmp_path: Path, files: dict[str, str]) -> None:
    """No /proc, no cgroup, a limit that is none, or nonsense: what counts is the host."""
    allocation = Allocation(7, _tree(tmp_path, files))
    assert allocation.limits(16, 64 * GIB) == (16.0, None, None)
    assert allocation.used(None).memory_bytes is None


def test_a_limit_above_the_hosts_memory_is_none(tmp_path: Path) -> None:
    """What is more than there is limits nothing."""
    files = {
        "proc/7/cgroup": "0::/\n",
        "proc/7/mountinfo": "1 1 0:1 / /cg rw - cgroup2 cgroup2 rw\n",
        "cg/memory.max": f"{128 * GIB}\n",
    }
    assert Allocation(7, _tree(tmp_path, files)).limits(4, 64 * GIB).memory_bytes is None


@pytest.mark.parametrize(
    ("text", "count"),
    [("0-3,7", 5), ("5", 1), ("", None), (None, None), ("x-y", None), ("3-1", None)],
)
def test_a_list_of_cpus_is_counted(text: str | None, count: int | None) -> None:
    """Ranges count with both ends; what names none is no limit."""
    assert cgroups.cpus_in(text) == count


def test_blanks_in_a_mount_are_read() -> None:
    """mountinfo writes them as octal numbers."""
    text = "1 1 0:1 / /my\\040groups rw - cgroup2 none rw\n"
    assert cgroups.mounts_in(text)[0].where == "/my groups"
