"""The identity of a process: its id, when it started, its host, and from where it is seen."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress


@functools.lru_cache(maxsize=1)
def host_name() -> str:
    """Return this host's name."""
    return socket.gethostname()


@functools.lru_cache(maxsize=1)
def kernel() -> str:
    """Return a token of the running kernel: no other one has it, nor this host after a reboot.

    On Linux the boot id, or without /proc the moment of the boot; elsewhere the host's name.
    """
    if sys.platform != "linux":
        return host_name()
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return f"{host_name()}, up since {booted:.0f}"


_FIRST_NAMESPACE = "pid:[4026531836]"  # the same number in every Linux


@functools.lru_cache(maxsize=1)
def machine() -> str | None:
    """Return a token of this machine that outlives its boots; ``None`` in a container.

    It is made of the machine's id, which is not for everybody to read.
    """
    with suppress(OSError):
        if pid_namespace() == _FIRST_NAMESPACE:
            with open("/etc/machine-id", "rb") as file:
                found = file.read().strip()
            return hashlib.sha256(b"keisei" + found).hexdigest()[:32] if found else None
    return None


def pid_namespace() -> str | None:
    """Return the namespace that process ids belong to; ``None`` where it cannot be known."""
    if sys.platform != "linux":
        return ""
    with suppress(OSError):
        if _has_own_proc():
            return os.readlink("/proc/self/ns/pid")
    return None


def _has_own_proc() -> bool:
    """Return whether /proc is of this process's own namespace, and knows processes as it does."""
    return os.readlink("/proc/self") == str(os.getpid())


def since_boot() -> float:
    """Return the time since the machine's boot, its sleep included, in seconds."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def runs(pid: int, start: str, namespace: str | None) -> bool | None:
    """Return whether a process runs under this kernel; ``None`` where it cannot be seen.

    Args:
        pid: its id.
        start: when it started, as `process_start` said.
        namespace: its `pid_namespace`.
    """
    if namespace is None or namespace != pid_namespace():
        return None
    found = process_start(pid)
    return None if found is None and _is_hidden(pid) else found == start


def _is_hidden(pid: int) -> bool:
    """Return whether there is a process of which /proc says nothing, as of another user's."""
    if sys.platform != "linux":
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            file.read()
        return False
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def process_start(pid: int) -> str | None:
    """Return a token of when a process started, or ``None`` where no such process runs.

    On Linux the boot id and the clock ticks since boot (proc(5), field 22 of stat), which no
    clock jump moves; on macOS what `ps` says; on Windows the creation time in 100 ns units.
    """
    if pid <= 0:
        return None
    if sys.platform == "linux":
        return _linux_start(pid)
    if sys.platform == "win32":
        return _windows_start(pid)
    return _ps_start(pid)


def _linux_start(pid: int) -> str | None:
    try:
        if not _has_own_proc():
            return None
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name stands in parentheses and may hold any character, so count from its end.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # A zombie has ended: only its parent has not asked yet.
    return None if fields[0] in (b"Z", b"X") else f"{kernel()}/{int(fields[19])}"


def _ps_start(pid: int) -> str | None:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    found = subprocess.run(
        command, capture_output=True, text=True, env={"LC_ALL": "C", **os.environ}
    )
    return found.stdout.strip() or None


def _windows_start(pid: int) -> str | None:
    import ctypes

    kernel32 = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    query_limited_information = 0x1000
    handle = kernel32.OpenProcess(query_limited_information, False, pid)
    if not handle:
        return None
    try:
        times = [ctypes.c_ulonglong() for _ in range(4)]
        if not kernel32.GetProcessTimes(handle, *map(ctypes.byref, times)):
            return None
        still_active, code = 259, ctypes.c_ulong()
        kernel32.GetExitCodeProcess(handle, ctypes.byref(code))
        return str(times[0].value) if code.value == still_active else None
    finally:
        kernel32.CloseHandle(handle)
