"""What the program and its descendants use; keisei's own processes among them are left out."""

from __future__ import annotations

import time
from typing import NamedTuple

import psutil

OWN = "KEISEI_HOST_PROCESS"  # stands in the command of each process of keisei's own
_SHARE = 200  # a look for new processes comes after so many times as long as the last one took
_NEW = 2  # looks, during which a new process may still become another program


class TreeUse(NamedTuple):
    """What a tree of processes has used.

    Attributes:
        cpu: its CPU time by now, in seconds.
        memory_bytes: the memory that it has now; what processes share counts for each of them.
        read_bytes: what it has read from disks by now; ``None`` where that is not to be had.
        written_bytes: what it has written by now.
        processes: how many there are.
    """

    cpu: float
    memory_bytes: int
    read_bytes: int | None
    written_bytes: int | None
    processes: int


class Tree:
    """The program and its descendants.

    The time of a process that has ended stays its parent's, on Linux, and so does what it has read
    and written: the sums grow, whatever comes and goes.

    Args:
        pid: the program.
    """

    def __init__(self, pid: int) -> None:
        self._program = psutil.Process(pid)
        self._known: dict[int, psutil.Process] = {pid: self._program}
        self._looks: dict[int, int] = {}  # how often a child of the program was seen
        self._own: dict[int, psutil.Process] = {}  # keisei's own, and what these have started
        self._own_use: dict[int, tuple[float, int, int]] = {}
        self._ended = (0.0, 0, 0)  # what those of keisei's own have used that have ended
        self._next_look = 0.0

    def read(self) -> TreeUse:
        """Read what the tree uses.

        Raises:
            psutil.Error: the program cannot be seen.
        """
        now = time.monotonic()
        if now >= self._next_look:
            self._look()
            after = time.monotonic()
            self._next_look = after + _SHARE * (after - now)
        self._leave_out()
        cpu, memory, read, written, count = 0.0, 0, 0, 0, 0
        has_io = False
        for pid, process in list(self._known.items()):
            try:
                used, rss, io = _use(process)
            except psutil.Error:
                if pid == self._program.pid:
                    raise
                del self._known[pid]
                continue
            count += 1
            cpu, memory = cpu + used, memory + rss
            if io is not None:
                has_io = True
                read, written = read + io[0], written + io[1]
        cpu = max(0.0, cpu - self._ended[0])
        if not has_io:
            return TreeUse(cpu, memory, None, None, count)
        read, written = max(0, read - self._ended[1]), max(0, written - self._ended[2])
        return TreeUse(cpu, memory, read, written, count)

    def _look(self) -> None:
        """Look for the processes that there are now."""
        found, own = {self._program.pid: self._program}, dict[int, psutil.Process]()
        for process in self._program.children(recursive=True):
            try:
                parent = process.ppid()
                if parent in own or (parent == self._program.pid and self._is_own(process)):
                    own[process.pid] = self._own.get(process.pid, process)
                else:
                    found[process.pid] = self._known.get(process.pid, process)
            except psutil.Error:
                continue
        self._known = found
        self._own |= own
        self._looks = {pid: n for pid, n in self._looks.items() if pid in found or pid in own}

    def _is_own(self, process: psutil.Process) -> bool:
        if process.pid in self._own:
            return True
        seen = self._looks.get(process.pid, 0)
        if seen >= _NEW:
            return False
        self._looks[process.pid] = seen + 1
        return any(OWN in word for word in process.cmdline())

    def _leave_out(self) -> None:
        """Note what keisei's own processes have used: once they have ended, it is the program's."""
        for pid, process in list(self._own.items()):
            try:
                used, _, io = _use(process)
            except psutil.Error:
                del self._own[pid]
                last = self._own_use.pop(pid, (0.0, 0, 0))
                ended = self._ended
                self._ended = (ended[0] + last[0], ended[1] + last[1], ended[2] + last[2])
            else:
                self._own_use[pid] = (used, *(io or (0, 0)))


def _use(process: psutil.Process) -> tuple[float, int, tuple[int, int] | None]:
    """Return CPU time and memory of a process, and what it has read and written, if known."""
    with process.oneshot():
        times = process.cpu_times()
        memory = process.memory_info().rss
        try:
            counters = process.io_counters() if hasattr(process, "io_counters") else None
        except (psutil.AccessDenied, NotImplementedError):
            counters = None
    used = times.user + times.system + times.children_user + times.children_system
    return used, memory, None if counters is None else (counters.read_bytes, counters.write_bytes)
