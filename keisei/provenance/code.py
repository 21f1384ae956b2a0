"""The state of the code: the commit, what differs from it, and the files that are in neither."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from keisei._io.switching import yield_gil
from keisei.provenance.difference import scrubbed_diff
from keisei.provenance.git import Answer, GitError, ask
from keisei.redaction import HIDDEN, redact_text

MOST_FILES = 2_000
MOST_NAMES = 1_000  # of what is left out
_LONGEST_STATUS = 32 * 2**20  # bytes
_NO_LINK_HERE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_LINK_HERE |= getattr(os, "O_BINARY", 0)
_COMMIT = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
# Files that are there to hold secrets, whatever is in them.
_SECRET_NAMES = re.compile(
    rb"\.env(\..*)?|\.?netrc|\.npmrc|\.pypirc|\.pgpass|\.git-credentials|\.htpasswd|.*\.(pem|key|p12|pfx"
    rb"|jks|keystore|kdbx|ppk|ovpn)|id_(rsa|dsa|ecdsa|ed25519)|credentials(\.json)?|secrets?\..*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Kept:
    """A file that is not in the commit as it stands in the working tree.

    Attributes:
        path: its path below the tree's top, as the system has it.
        mode: `100644`, `100755`, or `120000` for a symlink.
        data: its bytes, or the symlink's target; secrets are hidden.
        is_scrubbed: whether some were, so that it is not what stands in the tree.
    """

    path: bytes
    mode: str
    data: bytes
    is_scrubbed: bool = False


@dataclass
class Code:
    """The state of the code.

    Attributes:
        about: what is said of it, as plain data without secrets.
        diff: the difference to the commit, for people: bounded, secrets hidden.
        kept: the files that differ from the commit's.
    """

    about: dict[str, Any]
    diff: bytes = b""
    kept: list[Kept] = field(default_factory=list)


def code_state(
    directory: str,
    outside: Collection[str],
    secrets: tuple[str, ...],
    timeout: float,
    largest_file: int,
    largest_total: int,
    stop: threading.Event | None = None,
) -> Code:
    """Return the state of the code that a program is started from; blocks.

    Args:
        directory: the program's working directory.
        outside: directories that hold no code, such as where runs live.
        secrets: values to hide wherever they stand.
        timeout: how long git may take in all, in seconds.
        largest_file: the largest file that is kept, in bytes.
        largest_total: how much is kept in all, in bytes.
        stop: once it is set, git is killed, and what is known is that.
    """
    git = _Git(time.monotonic() + timeout, stop or threading.Event())
    about: dict[str, Any] = {"commit": None, "branch": None, "top": None, "is_dirty": None}
    code = Code(about)
    try:
        top, commit = _found(directory, git)
        about |= {"top": redact_text(os.fsdecode(top), secrets), "commit": commit}
        inside = [path for each in outside if (path := _below(top, each)) is not None]
        branch, changed, untracked, is_cut = _status(os.fsdecode(top), inside, git)
        about |= {"branch": branch and redact_text(branch, secrets)}
        keeping = _Keeping(os.fsdecode(top), secrets, largest_file, largest_total)
        keeping.keep(changed, untracked)
        code.kept = keeping.kept
        about |= {
            "is_dirty": bool(changed or untracked),
            "changed": len(changed),
            "untracked": len(untracked),
            "deleted": keeping.deleted,
            "scrubbed": keeping.scrubbed,
            "left_out": keeping.left_out[:MOST_NAMES],
            "left_out_more": len(keeping.left_out[MOST_NAMES:]),
            "list_is_cut": is_cut,
        }
        if commit is not None and changed:
            answer = _diff(os.fsdecode(top), inside, git, largest_total)
            code.diff = scrubbed_diff(answer.output, secrets, is_cut=answer.is_cut)
            about["diff_is_cut"] = answer.is_cut
        about["digest"] = _digest(code)
    except GitError as exc:
        about["problem"] = None if exc.is_no_repository else str(exc)
    return code


@dataclass(frozen=True)
class _Git:
    """Git, until a moment, or until an event is set."""

    give_up: float
    stop: threading.Event

    def ask(self, directory: str, arguments: list[str], largest: int = 64 * 2**20) -> Answer:
        return ask(directory, arguments, self.give_up, largest, stop=self.stop)


def _digest(code: Code) -> str:
    """Return a digest of what differs from the commit, to compare it with another attempt's."""
    digest = hashlib.sha256(code.diff)
    for one in code.kept:
        digest.update(b"%s %s %d\0" % (one.path, one.mode.encode(), len(one.data)) + one.data)
    return digest.hexdigest()


def _found(directory: str, git: _Git) -> tuple[bytes, str | None]:
    """Return the top of the working tree, and its commit; ``None`` before the first."""
    try:
        lines = git.ask(directory, ["rev-parse", "--show-toplevel", "HEAD"]).output
    except GitError as exc:
        if not exc.has_answered:
            raise
        top = git.ask(directory, ["rev-parse", "--show-toplevel"]).output
        return top.removesuffix(b"\n"), None
    top, _, commit = lines.removesuffix(b"\n").rpartition(b"\n")
    return top, commit.decode() if _COMMIT.fullmatch(commit) else None


def _below(top: bytes, path: str) -> str | None:
    """Return a directory's path below the top; ``None`` where it is not below."""
    real, above = os.path.realpath(path), os.path.realpath(os.fsdecode(top))
    if real != above and real.startswith(os.path.join(above, "")):
        return os.path.relpath(real, above)
    return None


def _outside(inside: Sequence[str]) -> list[str]:
    return ["--", ".", *(f":(top,exclude,literal){path}" for path in inside)]


def _status(
    top: str, inside: Sequence[str], git: _Git
) -> tuple[str | None, dict[bytes, str], list[bytes], bool]:
    """Return the branch, the paths that have changed with their modes, and the untracked ones."""
    command = ["status", "--porcelain=v2", "-z", "--branch", "--untracked-files=all"]
    command += ["--no-renames", "--no-ahead-behind", "--ignore-submodules=dirty"]
    answer = git.ask(top, [*command, *_outside(inside)], _LONGEST_STATUS)
    branch, changed, untracked = None, dict[bytes, str](), list[bytes]()
    entries = answer.output.split(b"\0")
    if answer.is_cut:
        entries.pop()
    for entry in entries:
        kind, _, rest = entry.partition(b" ")
        if entry.startswith(b"# branch.head "):
            name = entry[len(b"# branch.head ") :].decode("utf-8", "replace")
            branch = None if name == "(detached)" else name
        elif kind == b"1":
            _, _, _, _, mode, _, _, path = rest.split(b" ", 7)
            changed[path] = mode.decode()
        elif kind == b"u":
            _, _, _, _, _, mode, _, _, _, path = rest.split(b" ", 9)
            changed[path] = mode.decode()
        elif kind == b"?":
            untracked.append(rest)
    return branch, changed, [path for path in untracked if path not in changed], answer.is_cut


def _diff(top: str, inside: Sequence[str], git: _Git, largest: int) -> Answer:
    command = ["diff", "--no-ext-diff", "--no-textconv", "--no-color", "--find-renames"]
    command += ["--src-prefix=a/", "--dst-prefix=b/", "--submodule=short"]
    command += ["--ignore-submodules=dirty", "HEAD"]
    return git.ask(top, [*command, *_outside(inside)], largest)


class _Keeping:
    """Keeps the files that differ, within limits, and lists what it leaves out."""

    def __init__(
        self, top: str, secrets: tuple[str, ...], largest_file: int, largest_total: int
    ) -> None:
        self._top, self._secrets = os.fsencode(top), secrets
        self._largest, self._left = largest_file, largest_total
        self.kept: list[Kept] = []
        self.deleted: list[str] = []
        self.scrubbed: list[str] = []
        self.left_out: list[dict[str, Any]] = []

    def keep(self, changed: dict[bytes, str], untracked: Sequence[bytes]) -> None:
        """Keep what can be kept: the changed files first, then the small ones."""
        for path, mode in sorted(changed.items()):
            self._one(path, mode, is_tracked=True)
        for path in self._by_size(untracked):
            self._one(path, "", is_tracked=False)

    def _by_size(self, paths: Sequence[bytes]) -> Iterator[bytes]:
        sized = []
        for path in paths[: 10 * MOST_FILES]:
            try:
                sized.append((os.lstat(os.path.join(self._top, path)).st_size, path))
            except OSError:
                sized.append((0, path))
        yield from (path for _, path in sorted(sized))
        yield from paths[10 * MOST_FILES :]

    def _one(self, path: bytes, mode: str, *, is_tracked: bool) -> None:
        yield_gil()
        shown = self._name(path)
        if shown is None:
            self._leave(f"{HIDDEN}", "its name holds a secret")
            return
        whole = os.path.join(self._top, path)
        try:
            found = os.lstat(whole)
        except (FileNotFoundError, NotADirectoryError):
            if is_tracked:
                self.deleted.append(shown)
            return
        except OSError as exc:
            self._leave(shown, f"it cannot be read: {exc.strerror}")
            return
        if mode == "160000" or path.endswith(b"/") or stat.S_ISDIR(found.st_mode):
            if is_tracked and mode != "160000":
                self.deleted.append(shown)  # a directory stands in its place
            else:
                self._leave(shown, "another repository: a submodule, or one inside this one")
            return
        if (reason := self._refused(path, found)) is not None:
            self._leave(shown, reason, found.st_size)
            return
        try:
            data = self._read(whole, found)
        except OSError as exc:
            self._leave(shown, f"it cannot be read: {exc.strerror}")
            return
        if len(data) > min(self._largest, self._left):
            self._leave(shown, "it grows", found.st_size)
            return
        if stat.S_ISLNK(found.st_mode):
            mode = "120000"
        elif os.name == "posix" or not mode:
            mode = "100755" if found.st_mode & stat.S_IXUSR else "100644"
        self._take(path, shown, mode, data, is_tracked=is_tracked)

    def _take(self, path: bytes, shown: str, mode: str, data: bytes, *, is_tracked: bool) -> None:
        is_text = b"\0" not in data
        if not is_text and not is_tracked:
            self._leave(shown, "a binary file that git does not track", len(data))
            return
        # Bytes that are no UTF-8 come through unchanged.
        text = data.decode("utf-8" if is_text else "latin-1", "surrogateescape")
        hidden = redact_text(text, self._secrets)
        if hidden != text and (not is_text or mode == "120000"):
            self._leave(shown, "it holds what looks like a secret, and is no text", len(data))
            return
        if hidden != text:
            self.scrubbed.append(shown)
            data = hidden.encode("utf-8", "surrogateescape")
        self._left -= len(data)
        self.kept.append(Kept(path, mode, data, hidden != text))

    def _name(self, path: bytes) -> str | None:
        """Return a path as text; ``None`` where it holds a secret."""
        text = os.fsdecode(path)
        return text if redact_text(text, self._secrets) == text else None

    def _refused(self, path: bytes, found: os.stat_result) -> str | None:
        """Return why a file is left out without a look into it."""
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
            return "a pipe, a socket or a device"
        if _SECRET_NAMES.fullmatch(os.path.basename(path)):
            return "its name says that it holds secrets"
        if found.st_size > self._largest:
            return "larger than provenance.largest_file"
        if found.st_size > self._left:
            return "all together they are larger than provenance.largest_total"
        return "there are too many files" if len(self.kept) >= MOST_FILES else None

    def _read(self, path: bytes, found: os.stat_result) -> bytes:
        if stat.S_ISLNK(found.st_mode):
            return os.readlink(path)
        with open(os.open(path, os.O_RDONLY | _NO_LINK_HERE), "rb") as file:
            return file.read(min(self._largest, self._left) + 1)

    def _leave(self, shown: str, reason: str, size: int | None = None) -> None:
        one = {"path": shown, "reason": reason} | ({} if size is None else {"bytes": size})
        self.left_out.append(one)
