"""The sources that every machine has: CPU, memory, network, and the disk of the runs."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil

from keisei.monitoring.allocation import Allocation, Limits
from keisei.monitoring.readings import Reading
from keisei.monitoring.tree import Tree

_LIMITS_AGAIN = 60.0  # seconds
_SIZE_AGAIN = 60.0  # seconds between two looks at how large a run has become
_SIZE_SHARE = 0.05  # seconds of each reading that such looks may take: large runs take several


class HostSource:
    """CPU, memory, disk and network of the program, of what it may use, and of the host.

    Args:
        program: the id of the program's process.
    """

    name = "host"

    def __init__(self, program: int) -> None:
        self._tree = Tree(program)
        self._allocation = Allocation(program)
        self._limits: Limits | None = None
        self._limits_at = 0.0
        self._before: dict[str, tuple[float, float]] = {}
        self._host_before: tuple[float, float] | None = None
        self._host_cpus = psutil.cpu_count() or 1

    def read(self) -> Reading:
        """Read it."""
        reading = Reading()
        now = time.monotonic()
        memory = psutil.virtual_memory()
        if self._limits is None or now >= self._limits_at + _LIMITS_AGAIN:
            self._limits = self._allocation.limits(self._host_cpus, memory.total)
            self._limits_at = now
            reading.about = {
                "cpus": round(self._limits.cpus, 3),
                "cpus_host": self._host_cpus,
                "memory_limit_bytes": self._limits.memory_bytes,
                "memory_host_bytes": memory.total,
            }
        limits = self._limits
        allowed = limits.memory_bytes or memory.total
        metrics = reading.metrics
        self._read_tree(reading, limits, allowed)
        metrics["memory_host"] = memory.percent
        used = self._allocation.used(limits.memory_at)
        if used.memory_bytes is not None:
            metrics["memory_cgroup_bytes"] = used.memory_bytes
            metrics["memory_cgroup"] = 100 * used.memory_bytes / allowed
        if used.cpu is not None:
            self._rate(metrics, "cpu_cgroup", used.cpu.used, 100 / limits.cpus)
            self._rate(metrics, "cpu_throttled", used.cpu.throttled, 100)
        if (busy := self._host_busy()) is not None:
            metrics["cpu_host"] = busy
        network = psutil.net_io_counters(pernic=True, nowrap=False)
        outside = [count for name, count in network.items() if not name.startswith("lo")]
        for name, field in (("received", "bytes_recv"), ("sent", "bytes_sent")):
            total = sum(getattr(count, field) for count in outside)
            self._rate(metrics, f"network.{name}_bytes_per_s", total)
        return reading

    def _read_tree(self, reading: Reading, limits: Limits, allowed: int) -> None:
        metrics = reading.metrics
        try:
            tree = self._tree.read()
        except psutil.Error as exc:
            reading.problems["processes"] = f"the program cannot be seen: {type(exc).__name__}"
            return
        self._rate(metrics, "cpu", tree.cpu, 100 / limits.cpus)
        self._rate(metrics, "cpu_cores", tree.cpu)
        metrics["memory_bytes"] = tree.memory_bytes
        metrics["memory"] = 100 * tree.memory_bytes / allowed
        metrics["processes"] = tree.processes
        if tree.read_bytes is not None and tree.written_bytes is not None:
            self._rate(metrics, "disk.read_bytes_per_s", tree.read_bytes)
            self._rate(metrics, "disk.written_bytes_per_s", tree.written_bytes)

    def _rate(
        self, metrics: dict[str, float], name: str, total: float, factor: float = 1.0
    ) -> None:
        """Note by how much a total has grown each second since the last reading."""
        now = time.monotonic()
        before = self._before.get(name)
        self._before[name] = now, total
        if before is not None and now > before[0]:
            metrics[name] = factor * max(0.0, total - before[1]) / (now - before[0])

    def _host_busy(self) -> float | None:
        times = psutil.cpu_times()
        # What guests have had is in `user` and `nice`, too.
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        total = sum(times) - guests
        idle = times.idle + getattr(times, "iowait", 0.0)
        before, self._host_before = self._host_before, (total, idle)
        if before is None or total <= before[0]:
            return None
        busy = 1 - (idle - before[1]) / (total - before[0])
        return 100 * min(1.0, max(0.0, float(busy)))


class DiskSource:
    """The disks that the runs' directories are on, and how large the runs are.

    Attributes:
        directories: the runs' directories, by a key.
    """

    name = "disk"

    def __init__(self) -> None:
        self.directories: dict[str, str] = {}
        self._sizes: dict[str, tuple[float, float]] = {}  # how large, and when to look again
        self._looks: dict[str, tuple[Iterator[int], float]] = {}  # under way, and what they have

    def read(self) -> Reading:
        """Read it."""
        reading = Reading()
        disks: dict[int, dict[str, float]] = {}
        directories = dict(self.directories)
        until = time.monotonic() + _SIZE_SHARE
        for key, path in directories.items():
            try:
                device = os.stat(path).st_dev
                if device not in disks:
                    disks[device] = _disk(path)
            except FileNotFoundError:
                continue  # it was moved or removed
            except OSError as exc:
                reading.problems["disk"] = exc.strerror or type(exc).__name__
                continue
            self._look(key, path, until)
            reading.runs[key] = dict(disks[device])
            if key in self._sizes:
                reading.runs[key]["run_bytes"] = self._sizes[key][0]
        self._sizes = {key: size for key, size in self._sizes.items() if key in directories}
        self._looks = {key: look for key, look in self._looks.items() if key in directories}
        return reading

    def _look(self, key: str, path: str, until: float) -> None:
        """Go on looking how large a run is, until a moment; its size counts when all was seen."""
        if key not in self._looks:
            if time.monotonic() < self._sizes.get(key, (0.0, 0.0))[1]:
                return
            self._looks[key] = _sizes(path), 0.0
        files, total = self._looks[key]
        for size in files:
            total += size
            if time.monotonic() >= until:
                self._looks[key] = files, total
                return
        del self._looks[key]
        self._sizes[key] = total, time.monotonic() + _SIZE_AGAIN


def _disk(path: str) -> dict[str, float]:
    usage = psutil.disk_usage(path)
    return {"disk.free_bytes": usage.free, "disk.used": usage.percent}


def _sizes(path: str) -> Iterator[int]:
    """Yield how many bytes the files below a directory have; links are not followed."""
    waiting = [path]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
                    else:
                        yield found.st_size
