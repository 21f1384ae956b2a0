"""The identity of a process: its id, when it started, and its host."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys


@functools.lru_cache(maxsize=1)
def host_name() -> str:
    """Return this host's name."""
    return socket.gethostname()


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
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name stands in parentheses and may hold any character, so count from its end.
            fields = file.read().rpartition(b")")[2].split()
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
    except OSError:
        return None
    # A zombie has ended: only its parent has not asked yet.
    return None if fields[0] in (b"Z", b"X") else f"{boot}/{int(fields[19])}"


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
