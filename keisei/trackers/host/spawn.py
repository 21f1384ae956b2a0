"""Starts a host process, so that nothing but the program's own path decides what it imports.

The interpreter is isolated (`-I`): neither the working directory nor the environment is on its path
until the program's own path has been sent. What the program's path has from its script, its working
directory or its archive comes last there: a file that is called like a module of the standard
library, or a directory `wandb/`, shadows nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping

from keisei.trackers.host.messages import pack

MARK = "KEISEI_HOST_PROCESS"

# The pipes are moved away from 0 and 1 first: what a tracker prints, and what a process of its own
# inherits, reaches neither the program nor a reader of the program's output.
_BOOT = """
import os, pickle, sys
requests, news = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
nothing = os.open(os.devnull, os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(nothing, number)
try:
    sys.path[:], sys.argv[:], package = pickle.load(requests)
    start = os.path.join(package, "__init__.py")
    if os.path.isfile(start):  # the program's own keisei, whatever comes first on the path
        from importlib import util
        spec = util.spec_from_file_location("keisei", start, submodule_search_locations=[package])
        sys.modules["keisei"] = module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
    from keisei.trackers.host.process import begin
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
_PYTHON = re.compile(r"(python|pypy|graalpy)[\w.+-]*", re.IGNORECASE)


def why_not() -> str | None:
    """Return why no host process can be started from this program; ``None`` where one can."""
    if os.environ.get(MARK):
        return "this is a tracker's own process"
    if getattr(sys, "frozen", False):
        return "the program is frozen into one file"
    if not sys.executable:
        return "the program does not know its Python (sys.executable is empty)"
    if not _PYTHON.match(os.path.basename(sys.executable)):
        return f"the program's sys.executable is no Python ({sys.executable})"
    return None


def spawn(environ: Mapping[str, str], directory: str) -> subprocess.Popen[bytes]:
    """Start a host process; its standard input takes requests, its output gives news.

    Args:
        environ: its environment.
        directory: the program's working directory.

    Raises:
        OSError: it cannot be started.
    """
    command = [sys.executable, "-I", "-c", _BOOT]
    if sys.flags.dont_write_bytecode:
        command.insert(2, "-B")
    if sys.flags.utf8_mode:
        command[2:2] = ["-X", "utf8"]
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
    assert process.stdin is not None
    package = sys.modules["keisei"].__path__[0]
    process.stdin.write(pack((import_path(directory), sys.argv[:1], package)))
    return process


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
