"""Starts a process of keisei's own, so that only the program's own path decides what it imports.

The interpreter is isolated (`-I`): neither the working directory nor the environment is on its path
until the program's own path has been sent. What the program's path has from its script, its working
directory or its archive comes last there: a file that is called like a module of the standard
library, or a directory `wandb/`, shadows nothing.

What starts instead may be the training itself, where `sys.executable` is the program: a process of
keisei's greets first, and whatever does not is ended, and started no more.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, cast

from keisei._io.backoff import may_pass
from keisei._log import logger
from keisei.errors import describe

MARK = "KEISEI_HOST_PROCESS"

# The pipes are moved away from 0 and 1 first: what a tracker prints, and what a process of its own
# inherits, reaches neither the program nor a reader of the program's output.
_BOOT = """
import os, pickle, sys
requests, news = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
news.write(f"keisei {sys.implementation.cache_tag}\\n".encode())
news.flush()
del os.environ["KEISEI_HOST_PROCESS"]
nothing = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(nothing, number)
try:
    sys.path[:], sys.argv[:], package, begins, is_whole = pickle.load(requests)
    start = os.path.join(package, "__init__.py")
    import importlib
    if os.path.isfile(start):  # the program's own keisei, whatever comes first on the path
        from importlib import util
        spec = util.spec_from_file_location("keisei", start, submodule_search_locations=[package])
        sys.modules["keisei"] = module = util.module_from_spec(spec)
        if is_whole:
            spec.loader.exec_module(module)
    begin = importlib.import_module(begins).begin
except EOFError:
    os._exit(0)
except BaseException as error:
    news.write(pickle.dumps(f"{type(error).__name__}: {error}"))
    news.flush()
    os._exit(1)
begin()
"""
# On Windows: no window, and the training goes first where there are more threads than cores.
_FLAGS = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(
    subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0
)
# What a host process says first: whoever has not said it is none, and may be the program again.
GREETING = f"keisei {sys.implementation.cache_tag}\n".encode()
GREETING_TIMEOUT = 15.0  # seconds
_PYTHON = re.compile(r"(python|pypy|graalpy)[\w.+-]*", re.IGNORECASE)


_found_out = dict[str, str]()  # by executable: why it cannot be a host process
_said = set[str]()

if os.environ.get(MARK):  # a host process has taken it out before it imports this
    raise SystemExit("keisei: this program was started in the place of a tracker's process")


def why_not() -> str | None:
    """Return why no host process can be started from this program; ``None`` where one can."""
    if hasattr(sys.modules.get("__main__"), "keisei_host_process"):
        return "this is a tracker's own process"
    if getattr(sys, "frozen", False):
        return "the program is frozen into one file"
    executable = program()
    if not executable:
        return "the program does not know its Python (sys.executable is empty)"
    if not _PYTHON.match(os.path.basename(executable)):
        return f"the program's sys.executable is no Python ({executable})"
    return wrong_with(executable)


def wrong_with(executable: str) -> str | None:
    """Return what was found out of a program that was started as a host process."""
    return _found_out.get(executable)


def found_out(executable: str, problem: str) -> None:
    """Note that what starts as a host process is none."""
    _found_out[executable] = f"the program's sys.executable is no Python ({executable}): {problem}"


def say_once(reason: str) -> None:
    """Log that trackers run in the program, once for each reason."""
    if reason not in _said:
        _said.add(reason)
        logger.warning("trackers run in the program, not in processes of their own: %s", reason)


def program() -> str:
    """Return the path of the program's Python; an empty one where it is not known."""
    found = getattr(sys, "executable", None)
    return os.fsdecode(found) if found else ""


def spawn(
    executable: str,
    environ: Mapping[str, str],
    directory: str,
    begins: str,
    *,
    is_whole: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a process of keisei's; its standard input takes requests, its output gives news.

    Args:
        executable: the program's Python.
        environ: its environment.
        directory: the program's working directory.
        begins: the module whose `begin` the process calls.
        is_whole: whether all of keisei is imported there; else only that module and what it needs.

    Raises:
        OSError: it cannot be started.
    """
    command = [os.path.join(directory, executable), "-I", "-c", _BOOT]
    if sys.flags.dont_write_bytecode:
        command.insert(2, "-B")
    if sys.flags.utf8_mode:
        command[2:2] = ["-X", "utf8"]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=os.sep,  # which is there; requests say where relative paths begin
            env={**environ, MARK: "1"},
            start_new_session=True,  # what is typed at the terminal is not for it
            creationflags=_FLAGS,
        )
    except OSError as exc:
        if exc.errno == errno.ENOEXEC or not may_pass(exc):
            found_out(executable, describe(exc))
        raise
    assert process.stdin is not None
    package = sys.modules["keisei"].__path__[0]
    first = (import_path(directory), sys.argv[:1], package, begins, is_whole)
    with suppress(BrokenPipeError):  # it has ended, which its reader says
        process.stdin.write(pickle.dumps(first, pickle.HIGHEST_PROTOCOL))
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a session of its own, and what it has started there."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def reap(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a process that ends, and wait for it."""
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            cast(IO[bytes], pipe).close()
    process.wait()


def import_path(directory: str) -> list[str]:
    """Return the program's import path with what an installation has on it first.

    Args:
        directory: the program's working directory.
    """
    main_file = getattr(sys.modules.get("__main__"), "__file__", None)
    script = os.path.dirname(os.path.join(directory, main_file)) if main_file else directory
    last = {os.path.realpath(directory), os.path.realpath(script)}
    last -= {os.path.realpath(path) for path in sysconfig.get_paths().values()}
    path = [os.path.join(directory, entry) for entry in sys.path]
    return sorted(path, key=lambda entry: os.path.realpath(entry) in last)
