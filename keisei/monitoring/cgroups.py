"""What a process may use of its host: what the texts of cgroups, of both versions, say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_UNLIMITED = 1 << 60  # bytes: version 1 has no word for it, and says a number near 2**63


class Mount(NamedTuple):
    """A hierarchy of cgroups as it is mounted.

    Attributes:
        where: the directory on which it is mounted.
        root: which of its cgroups stands there.
        controllers: what it controls, in version 1; empty in version 2.
    """

    where: str
    root: str
    controllers: frozenset[str]


class CpuUse(NamedTuple):
    """The CPU time of a cgroup.

    Attributes:
        used: how much its processes have had, in seconds.
        throttled: for how long they were kept from running by the quota, in seconds.
    """

    used: float
    throttled: float


def mounts_in(text: str) -> list[Mount]:
    """Return the hierarchies of cgroups that a `/proc/PID/mountinfo` names."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = frozenset(kind[-1].split(",")) if kind[0] == "cgroup" else frozenset[str]()
        found.append(Mount(_unescaped(fields[4]), _unescaped(fields[3]), controllers))
    return found


def directories(cgroup: str, mountinfo: str) -> dict[str, list[str]]:
    """Return where a process's cgroups may be found, by controller; `""` is version 2.

    Args:
        cgroup: what `/proc/PID/cgroup` says.
        mountinfo: what `/proc/PID/mountinfo` says.

    Returns:
        For each controller the directories from the process's own cgroup up to the one that is
        mounted; those that cannot be seen from here may be missing.
    """
    own: dict[str, str] = {}
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            own[name] = path
    found: dict[str, list[str]] = {}
    for mount in mounts_in(mountinfo):
        for name in mount.controllers or ("",):
            if name in own and name not in found:
                found[name] = _upward(mount, own[name])
    return found


def _upward(mount: Mount, path: str) -> list[str]:
    """Return the directories from a cgroup up to where its hierarchy is mounted."""
    root = mount.root.rstrip("/")
    below = path[len(root) :] if path == root or path.startswith(f"{root}/") else ""
    parts = [part for part in below.split("/") if part and part != ".."]
    return ["/".join([mount.where, *parts[:count]]) for count in range(len(parts), -1, -1)]


def quota(texts: Mapping[str, str | None]) -> float | None:
    """Return how many CPUs a cgroup may keep busy; ``None`` where it says no limit.

    Args:
        texts: its files, by name: `cpu.max`, or `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    """
    text = texts.get("cpu.max")
    words = (
        text.split() if text else [texts.get("cpu.cfs_quota_us"), texts.get("cpu.cfs_period_us")]
    )
    allowed, period = (whole(word) for word in (*words, None, None)[:2])
    if allowed is None or allowed <= 0 or not period or period < 0:
        return None
    return allowed / period


def limit(text: str | None) -> int | None:
    """Return a limit in bytes; ``None`` where there is none."""
    found = whole(text)
    return None if found is None or not 0 < found < _UNLIMITED else found


def cpus_in(text: str | None) -> int | None:
    """Return how many CPUs a list such as ``0-3,7`` names; ``None`` where it names none."""
    count = 0
    for part in (text or "").strip().split(","):
        first, _, last = part.partition("-")
        begins = whole(first)
        ends = whole(last) if last else begins
        if begins is not None and ends is not None and ends >= begins:
            count += ends - begins + 1
    return count or None


def field(text: str | None, name: str) -> int | None:
    """Return a number of a text with one name and number in each line; ``None`` without it."""
    for line in (text or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return whole(value)
    return None


def cpu_use(texts: Mapping[str, str | None]) -> CpuUse | None:
    """Return the CPU time of a cgroup; ``None`` where it does not say it.

    Args:
        texts: its files, by name: `cpu.stat`, and in version 1 `cpuacct.usage`.
    """
    stat = texts.get("cpu.stat")
    if (used := field(stat, "usage_usec")) is not None:
        return CpuUse(used / 1e6, (field(stat, "throttled_usec") or 0) / 1e6)
    if (used := whole(texts.get("cpuacct.usage"))) is not None:
        return CpuUse(used / 1e9, (field(stat, "throttled_time") or 0) / 1e9)
    return None


def memory_use(texts: Mapping[str, str | None]) -> int | None:
    """Return the memory of a cgroup that cannot be had back at once, in bytes.

    What of files is only cached, and was not used lately, is left out: the kernel gives it away
    before it kills.

    Args:
        texts: its files, by name: `memory.current` or `memory.usage_in_bytes`, and `memory.stat`.
    """
    used = whole(texts.get("memory.current"))
    cached = field(texts.get("memory.stat"), "inactive_file")
    if used is None:
        used = whole(texts.get("memory.usage_in_bytes"))
        cached = field(texts.get("memory.stat"), "total_inactive_file")
    return None if used is None else max(0, used - (cached or 0))


def whole(text: str | None) -> int | None:
    """Return a whole number; ``None`` where the text is none, as `max`."""
    try:
        return int(text or "")
    except ValueError:
        return None


def _unescaped(path: str) -> str:
    """Return a path of mountinfo, in which blanks and the like stand as octal numbers."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        path = path.replace(code, chr(int(code[1:], 8)))
    return path
