"""Ask git, at arm's length: in a process of its own, which a deadline ends with all it started.

Nothing of the repository's is run that git itself does not need to compare files: no hook, pager,
prompt, file-system monitor, external diff or text conversion; and nothing is fetched. Whose
repository it may read, git decides (`safe.directory`).
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from keisei._io.forks import after_in_child
from keisei.redaction import clean

# Of git's own variables, those that say which config it reads; others would lead it elsewhere.
_KEPT = re.compile(
    r"GIT_(CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|(KEY|VALUE)_\d+)|CEILING_DIRECTORIES"
    r"|DISCOVERY_ACROSS_FILESYSTEM|EXEC_PATH|SSL_\w+)"
)
_OWN = {
    "GIT_ALLOW_PROTOCOL": "",  # older ones than 2.45 know no other way not to fetch what is missing
    "GIT_ASKPASS": "",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "LANGUAGE": "C",
    "LC_ALL": "C",
}
_SWITCHES = [
    "--no-pager",
    "--no-optional-locks",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.bigFileThreshold=16m"),  # a larger one is not compared line by line
    *("-c", "core.safecrlf=false"),
    *("-c", "credential.helper="),
    *("-c", "submodule.recurse=false"),
]
NO_GIT = "git is not installed, or the working directory has gone"

_SHELL = "/bin/sh"
# The pipe that it reads ends with the program, however that dies: then all of the group is killed.
_WATCHED = 'exec 3<&0 </dev/null; (read -r _ <&3; kill -KILL 0) & exec 3<&-; "$0" "$@"'

_LONGEST_REASON = 300
_LONGEST_LOOK = 0.02  # seconds between two looks whether git has ended

_running = set[subprocess.Popen[bytes]]()


class GitError(Exception):
    """Git cannot be asked, or has answered with an error; the message says which, secrets hidden.

    Attributes:
        is_no_repository: whether the directory is in no repository, which is no fault.
        has_answered: whether git has ended by itself.
    """

    is_no_repository = has_answered = False


@dataclass(frozen=True)
class Answer:
    """What git has written.

    Attributes:
        output: its standard output.
        is_cut: whether there was more than was asked for.
    """

    output: bytes
    is_cut: bool


def ask(
    directory: str,
    arguments: list[str],
    give_up: float,
    largest: int = 64 * 2**20,
    environ: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Answer:
    """Run a command of git's, and return what it writes; blocks.

    It writes to files, and not to pipes: a process that is forked meanwhile would keep those open.

    Args:
        directory: where it runs.
        arguments: the command, and its arguments.
        give_up: when it is killed, by the monotonic clock.
        largest: how much of its output is read, in bytes; there it is killed.
        environ: more variables.
        stop: once it is set, git is killed.

    Raises:
        GitError: there is no git, it fails, or its time is over.
    """
    if give_up <= time.monotonic():
        raise GitError("git has taken too long")
    stop = threading.Event() if stop is None else stop
    try:
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            try:
                process = _started(directory, arguments, environ or {}, output, errors)
            except FileNotFoundError:
                raise GitError(NO_GIT) from None
            _running.add(process)
            try:
                is_cut = _waited_for(process, arguments[0], output, largest, give_up, stop)
            finally:
                kill(process)
                if process.stdin is not None:
                    process.stdin.close()
                process.wait(5)
                _running.discard(process)
            if process.returncode and not is_cut:
                errors.seek(0)
                raise _failed(arguments[0], process.returncode, errors.read(4096))
            output.seek(0)
            return Answer(output.read(largest), is_cut)
    except (OSError, RuntimeError, subprocess.SubprocessError) as exc:
        raise GitError(f"git cannot be run: {clean(str(exc))}") from None


def _started(
    directory: str,
    arguments: list[str],
    environ: Mapping[str, str],
    output: IO[bytes],
    errors: IO[bytes],
) -> subprocess.Popen[bytes]:
    known = _environ() | dict(environ)
    command = ["git", *_SWITCHES, *arguments]
    if shutil.which("git", path=known.get("PATH")) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "git")
    is_watched = os.path.exists(_SHELL)
    return subprocess.Popen(
        [_SHELL, "-c", _WATCHED, *command] if is_watched else command,
        cwd=directory,
        env=known,
        stdin=subprocess.PIPE if is_watched else subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _waited_for(
    process: subprocess.Popen[bytes],
    command: str,
    output: IO[bytes],
    largest: int,
    give_up: float,
    stop: threading.Event,
) -> bool:
    """Wait until git has ended, or has written more than is read; return whether it has."""
    pause = 0.001
    while process.poll() is None:
        if os.fstat(output.fileno()).st_size > largest:
            return True
        if time.monotonic() >= give_up:
            raise GitError(f"git {command} has not ended in time, and was killed")
        if stop.wait(pause):
            raise GitError(
                f"git {command} was killed before it had answered: the program ends, "
                "or too many sessions wait for it"
            )
        pause = min(2 * pause, _LONGEST_LOOK)
    return os.fstat(output.fileno()).st_size > largest


def _environ() -> dict[str, str]:
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or _KEPT.fullmatch(name)
    }
    return own | _OWN


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group of its own, and what it has started in it.

    Args:
        process: the process; nothing happens where its end is known.
    """
    if process.returncode is not None:
        return
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


def kill_all() -> None:
    """Kill what runs of git's, for the program ends."""
    for process in tuple(_running):
        kill(process)


atexit.register(kill_all)
after_in_child(_running.clear)


def _failed(command: str, status: int, written: bytes) -> GitError:
    text = written.decode("utf-8", "replace").strip()
    if "dubious ownership" in text:
        return GitError(
            "git does not read this repository, which belongs to somebody else: where it may be "
            "trusted, `git config --global --add safe.directory DIRECTORY` says so"
        )
    error = GitError(f"git {command} has ended with {status}: {clean(text)[:_LONGEST_REASON]}")
    error.has_answered = True
    error.is_no_repository = "not a git repository" in text
    return error
