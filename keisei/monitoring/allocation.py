"""Reads what the program may use of its host, and how much of it is used by all that share it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from keisei.monitoring import cgroups

_LONGEST = 1 << 16  # bytes of a file of the kernel's


class Limits(NamedTuple):
    """What the program may use.

    Attributes:
        cpus: how many CPUs it can keep busy.
        memory_bytes: how much memory it may have; ``None`` without a limit of its own.
        memory_at: the cgroup that has this limit; ``None`` where none has.
    """

    cpus: float
    memory_bytes: int | None
    memory_at: str | None


class Used(NamedTuple):
    """What is used of the allocation, by all that share it.

    Attributes:
        cpu: the CPU time of the program's cgroup; ``None`` where that cannot be read.
        memory_bytes: the memory of the cgroup with the limit; ``None`` where it cannot be read.
    """

    cpu: cgroups.CpuUse | None
    memory_bytes: int | None


class Allocation:
    """What a process may use, as its cgroups and its affinity say.

    Args:
        pid: the process.
        root: what stands for the root of the file system.
    """

    def __init__(self, pid: int, root: str = "/") -> None:
        self._root, self._pid = root.rstrip("/"), pid
        self._found: dict[str, list[str]] = {}

    def limits(self, host_cpus: int, host_memory: int) -> Limits:
        """Read the limits, which may have changed.

        Args:
            host_cpus: how many CPUs the host has.
            host_memory: how much memory it has, in bytes: more is no limit.
        """
        cgroup = self._read(f"/proc/{self._pid}/cgroup") or ""
        mounts = self._read(f"/proc/{self._pid}/mountinfo") or ""
        self._found = cgroups.directories(cgroup, mounts)
        cpus: list[float] = [float(host_cpus)]
        for where in self._of("cpu"):
            files = self._texts(where, "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
            if (quota := cgroups.quota(files)) is not None:
                cpus.append(quota)
        for where in self._of("cpuset"):
            files = self._texts(
                where, "cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"
            )
            count = next((n for text in files.values() if (n := cgroups.cpus_in(text))), None)
            if count is not None:
                cpus.append(count)
                break
        if hasattr(os, "sched_getaffinity") and not self._root:
            with suppress(OSError):
                cpus.append(len(os.sched_getaffinity(self._pid)))
        lowest: tuple[int, str] | None = None
        for where in self._of("memory"):
            files = self._texts(where, "memory.max", "memory.limit_in_bytes")
            for text in files.values():
                found = cgroups.limit(text)
                is_lower = found is not None and (lowest is None or found < lowest[0])
                if found is not None and is_lower and found < host_memory:
                    lowest = found, where
        memory, memory_at = (None, None) if lowest is None else lowest
        return Limits(min(cpus), memory, memory_at)

    def used(self, memory_at: str | None) -> Used:
        """Read what is used by now.

        Args:
            memory_at: the cgroup whose memory is meant; ``None`` for the program's own.
        """
        cpu = None
        for where in self._of("cpuacct")[:1]:
            cpu = cgroups.cpu_use(self._texts(where, "cpu.stat", "cpuacct.usage"))
        own = self._of("memory")[:1] if memory_at is None else [memory_at]
        memory = None
        for where in own:
            names = "memory.current", "memory.usage_in_bytes", "memory.stat"
            memory = cgroups.memory_use(self._texts(where, *names))
        return Used(cpu, memory)

    def _of(self, controller: str) -> list[str]:
        """Return the directories of a controller, the process's own first, that are there."""
        found = self._found.get(controller) or self._found.get("", [])
        return [where for where in found if os.path.isdir(self._root + where)]

    def _texts(self, where: str, *names: str) -> dict[str, str | None]:
        return {name: self._read(f"{where}/{name}") for name in names}

    def _read(self, path: str) -> str | None:
        try:
            fd = os.open(self._root + path, os.O_RDONLY)
        except OSError:
            return None
        try:
            return os.read(fd, _LONGEST).decode("utf-8", "replace")
        except OSError:
            return None
        finally:
            os.close(fd)
