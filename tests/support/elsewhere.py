"""A run's whole life with what another system has: its names are put over this one's first.

Run as `python -m tests.support.elsewhere SYSTEM DIRECTORY`, where SYSTEM is `windows` or `macos`.
It cannot show what such a system does, only which of keisei's branches are taken there, and that
nothing is called which is missing there.
"""

from __future__ import annotations

import asyncio
import builtins
import ctypes
import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import types
from collections import namedtuple
from collections.abc import Callable
from typing import Any

_NOT_ON_WINDOWS = """
    O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK chown fchmod fchown fork forkpty fstatvfs getegid
    geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getsid getuid killpg lchown
    mkfifo nice posix_fadvise posix_fallocate pread preadv pwrite pwritev register_at_fork
    sched_getaffinity sched_yield set_blocking setpgid setsid statvfs sysconf tcgetpgrp ttyname
    uname
""".split()
_NOT_ON_MACOS = "memfd_create pidfd_open posix_fadvise posix_fallocate sched_getaffinity".split()
_NOT_SIGNALS = """
    SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 pthread_kill
    pthread_sigmask sigpending sigtimedwait sigwait
""".split()
_NOT_CLOCKS = ["CLOCK_BOOTTIME", "pthread_getcpuclockid"]
_Usage = namedtuple("_Usage", "total used free")


def _remove(module: types.ModuleType, names: list[str]) -> None:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
    if hasattr(os, "process_cpu_count"):  # of Python 3.13 and newer; elsewhere it is the same
        os.process_cpu_count = os.cpu_count


def be_windows() -> None:
    """Take away what Windows has not, and stand in for what it has."""
    kill, statvfs = signal.SIGKILL, os.statvfs

    def disk_usage(path: str) -> _Usage:
        disk = statvfs(path)
        sizes = [disk.f_frsize * count for count in (disk.f_blocks, disk.f_bavail)]
        return _Usage(sizes[0], sizes[0] - sizes[1], sizes[1])

    shutil.disk_usage = disk_usage  # type: ignore[assignment]
    subprocess.Popen.kill = lambda self: self.send_signal(kill)  # type: ignore[method-assign]
    shutil._winapi = types.SimpleNamespace(  # type: ignore[attr-defined]
        NeedCurrentDirectoryForExePath=lambda command: False
    )
    pathlib.Path.__new__.__globals__["WindowsPath"] = pathlib.PosixPath
    for name in ("fcntl", "grp", "pwd", "resource", "termios"):
        sys.modules[name] = None  # type: ignore[assignment]
    sys.modules["msvcrt"] = _msvcrt()
    ctypes.windll = types.SimpleNamespace(kernel32=_Kernel32())  # type: ignore[attr-defined]
    os.supports_dir_fd = set()
    _remove(os, _NOT_ON_WINDOWS)
    _remove(signal, _NOT_SIGNALS)
    _remove(time, _NOT_CLOCKS)
    _hide_proc()
    sys.platform, os.name = "win32", "nt"


def be_macos() -> None:
    """Take away what macOS has not."""
    _remove(os, _NOT_ON_MACOS)
    _remove(time, _NOT_CLOCKS)
    _hide_proc()
    sys.platform = "darwin"


def _msvcrt() -> Any:
    module = types.ModuleType("msvcrt")
    flock, lock, unlock, now = fcntl.flock, fcntl.LOCK_EX, fcntl.LOCK_UN, fcntl.LOCK_NB

    def locking(fd: int, mode: int, count: int) -> None:
        flock(fd, (lock | now) if mode else unlock)

    vars(module).update(locking=locking, LK_NBLCK=2, LK_UNLCK=0)
    return module


class _Kernel32:
    """What is asked of a process there; one of this process's own is enough."""

    def OpenProcess(self, access: int, inherit: bool, pid: int) -> int:
        return pid if pid == os.getpid() else 0

    def GetProcessTimes(self, handle: int, *times: Any) -> int:
        times[0]._obj.value = 133_000_000_000_000_000 + handle
        return 1

    def GetExitCodeProcess(self, handle: int, code: Any) -> int:
        code._obj.value = 259
        return 1

    def CloseHandle(self, handle: int) -> int:
        return 1


def _hide_proc() -> None:
    def hiding(func: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, (str, bytes)) and os.fsencode(path).startswith(
                (b"/proc", b"/sys/")
            ):
                raise FileNotFoundError(2, "there is none on this system", path)
            return func(path, *args, **kwargs)

        return call

    builtins.open = hiding(open)
    for name in ("open", "readlink", "listdir", "stat", "lstat"):
        replaced = hiding(getattr(os, name))
        setattr(os, name, replaced)


def live(directory: str) -> None:
    """Log, save, fail, go on from the checkpoint, end, and read it all back."""
    import keisei
    from keisei._io import process
    from keisei.journal.reader import read_run

    config = keisei.AppConfig.model_validate(
        {
            "logging": {"log_dir": directory},
            "signals": {"handle": True},
            "checkpoints": {"keep_last": 2, "interval": 25},
        }
    )
    for attempt in (1, 2):
        try:
            with keisei.SessionManager(config, run_name="walker") as session:
                found = session.restore_checkpoint() if attempt > 1 else None
                assert (found is None) == (attempt == 1)
                for step in range(100 * attempt - 100, 100 * attempt):
                    session.log_metrics({"loss": 1 / (step + 1)}, step=step)
                    if step % 25 == 0:
                        session.save_checkpoint({"step": step}, step=step)
                if attempt == 1:
                    session.save_checkpoint({"step": 99}, step=99)
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert session.status == "failed"
    assert session.status == "completed"
    with open(os.path.join(session.run_artifact_dir, "training.log")) as log:
        assert log.read()
    assert read_run(session.run_artifact_dir).attempts() == [1, 2]
    start = process.process_start(os.getpid())
    assert start
    assert process.runs(os.getpid(), start, process.pid_namespace())


def main(system: str, directory: str) -> None:
    """Import what is not keisei's as this system does, be the other one, and import keisei."""
    import keisei

    keisei.AppConfig()
    asyncio.run(asyncio.sleep(0))  # from Python 3.14 on it chooses its loop's kind here
    for name in [name for name in sys.modules if name.split(".")[0] == "keisei"]:
        del sys.modules[name]
    {"windows": be_windows, "macos": be_macos}[system]()
    live(directory)
    print("lived")


if __name__ == "__main__":
    main(*sys.argv[1:])
