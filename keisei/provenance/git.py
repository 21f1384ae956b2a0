"""Ask git, at arm's length: in a process of its own, which a deadline ends with all it started.

Nothing of the repository's is run that git itself does not need to compare files: no hook, pager,
prompt, file-system monitor, external diff or text conversion; and nothing is fetched. Whose
repository it may read, git decides (`safe.directory`).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

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

_PART = 1 << 16
_LONGEST_REASON = 300


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
) -> Answer:
    """Run a command of git's, and return what it writes; blocks.

    Args:
        directory: where it runs.
        arguments: the command, and its arguments.
        give_up: when it is killed, by the monotonic clock.
        largest: how much of its output is read, in bytes; there it is killed.
        environ: more variables.

    Raises:
        GitError: there is no git, it fails, or its time is over.
    """
    left = give_up - time.monotonic()
    if left <= 0:
        raise GitError("git has taken too long")
    process = None
    try:
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                ["git", *_SWITCHES, *arguments],
                cwd=directory,
                env=_environ() | dict(environ or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
            timed_out = threading.Event()
            timer = threading.Timer(left, _stop, (process, timed_out))
            timer.daemon = True
            timer.start()
            try:
                output, is_cut = _read(process, largest)
                if is_cut:
                    _kill(process)
                status = process.wait(5)
            finally:
                timer.cancel()
                _kill(process)
            if timed_out.is_set():
                raise GitError(f"git {arguments[0]} has not ended in time, and was killed")
            if status and not is_cut:
                errors.seek(0)
                raise _failed(arguments[0], status, errors.read(4096))
            return Answer(output, is_cut)
    except FileNotFoundError:
        raise GitError(NO_GIT) from None
    except (OSError, RuntimeError, subprocess.SubprocessError) as exc:
        raise GitError(f"git cannot be run: {clean(str(exc))}") from None
    finally:
        if process is not None and process.stdout is not None:
            process.stdout.close()


def _environ() -> dict[str, str]:
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or _KEPT.fullmatch(name)
    }
    return own | _OWN


def _read(process: subprocess.Popen[bytes], largest: int) -> tuple[bytes, bool]:
    assert process.stdout is not None
    parts, size = [], 0
    while part := process.stdout.read(_PART):
        parts.append(part[: largest - size])
        size += len(part)
        if size > largest:
            return b"".join(parts), True
    return b"".join(parts), False


def _stop(process: subprocess.Popen[bytes], timed_out: threading.Event) -> None:
    timed_out.set()
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a group of its own, and what it has started in it."""
    if process.returncode is not None:
        return
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()


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
